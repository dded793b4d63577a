"""One write for all attentions of a layer: against its definition, vLLM's own write for each, and the masked model.

In Triton's interpreter, CUDA graphs recorded and replayed there; Triton's compiler takes the kernels for a GPU, but
nothing runs on one. On vLLM's Triton attention, in float32 within 1e-5.
"""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, Final

import cache_write_probes
import pytest
import torch
from engine_cases import Case, EngineRuns
from engine_host import BLOCK, EngineHost, Round, call
from engine_prompts import EnginePrompt
from exactness import EXACT
from oracle import TinyModel
from text_only_probes import QUESTION
from vllm_releases import Installed

from vhserve.compat.layers import CACHE_WRITE, split_graphs_at
from vhserve.engine.attention.cache_write import fit_one_launch

pytestmark = pytest.mark.vllm

OWN_WRITE: Final = "vhserve::write_kv_parts"

ROUNDS = (Round((EnginePrompt(QUESTION, (1,)), EnginePrompt("<s>yes no")), tokens=3),)
PARTS: dict[str, Any] = {
    "granularity": "kv_group",
    "text_only": {0: (0, 1), 2: tuple(range(4))},
    "removed": {3: (2, 3)},
}
"""Of a grouped-query model of 4 layers: two have full and text-only heads."""
SPLIT = 2
GRAPHS: dict[str, Any] = {
    "enforce_eager": False,
    "max_num_seqs": 2,
    "max_num_batched_tokens": 128,
    "compilation_config": {
        "mode": 3,
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": [1, 2, 128],
    },
}
"""What vLLM chooses on a GPU: a graph of a whole decode step, and for others of the pieces between attention."""


def triton_case(**more: Any) -> Case:
    return Case(
        **{"model": "gqa", **PARTS, "rounds": ROUNDS, "patches": ("triton_attention",)}
        | {"probe": "cache_write_probes:writes"}
        | more
    )


UNASKED: dict[str, Any] = {"rounds": (), "probe": "cache_write_probes:layers_that_share"}

CASES = {
    "eager": triton_case(),
    "graphs": triton_case(settings=GRAPHS, patches=("triton_attention", "graphs", "noted_pieces")),
    "torch_compile": triton_case(settings={"enforce_eager": False}),
    "chunks": triton_case(settings={"max_num_batched_tokens": BLOCK, "max_num_seqs": 4}),
    "gathered": triton_case(surgery="gather"),
    "three_parts": triton_case(
        model="mha",
        granularity="query_head",
        text_only={1: (0, 2)},
        removed={3: (0,)},
        other={"evict": {1: (3,), 4: (1, 2)}},
    ),
    "quantised_cache": triton_case(**UNASKED, settings={"kv_cache_dtype": "fp8"}),
    "other_cache_type": triton_case(**UNASKED, settings={"kv_cache_dtype": "bfloat16"}),
    "attention_for_cpus": triton_case(**UNASKED, patches=()),
}
QUICK = ("eager",)

FOR_A_GPU = """
import torch, triton
from triton.backends.compiler import GPUTarget
from vhserve.engine.attention import cache_write_kernel, compaction_kernel

class Hopper:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)
    def get_current_device(self):
        return 0
    def get_current_stream(self, device=None):
        return 0
    def get_active_torch_device(self):
        return torch.device("cpu")

triton.runtime.driver.set_active(Hopper())

def compiled(module, name, call):
    kernel, made = getattr(module, name), []
    class Launch:
        def __getitem__(self, grid):
            return lambda *args, **options: made.append(kernel.warmup(*args, grid=grid, **options))
    setattr(module, name, Launch())
    call()
    return made[0].asm["ptx"]

def write():
    size, heads = 128, (8, 24)
    qkv = torch.zeros(4, 3 * sum(heads) * size, dtype=torch.bfloat16)
    runs = qkv.split(sum(heads) * size, -1)
    keys, values = ([part.view(4, -1, size) for part in run.split([count * size for count in heads], -1)]
                    for run in runs[1:])
    caches = [torch.zeros(3, 16, count, 2 * size, dtype=torch.bfloat16).transpose(1, 2) for count in heads]
    cache_write_kernel.write_kv_parts(keys, values, caches, [torch.zeros(4, dtype=torch.int64)] * 2)

def compact():
    ints = {"dtype": torch.int32}
    compaction_kernel.compact_tables(torch.zeros(4, 64, **ints), torch.zeros(4, **ints), torch.zeros(4, 65, **ints),
                                     torch.zeros(4, **ints), 16)

ptx = compiled(cache_write_kernel, "_write_kv_parts", write)
assert "st.global.v4.b32" in ptx and "ld.global.v4.b32" in ptx  # 16 bytes each
assert "st.global" in compiled(compaction_kernel, "_compact_tables", compact)
print("compiled")
"""


@pytest.fixture(scope="session")
def served(device_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(device_host, models, CASES)


def test_the_kernel_does_what_vllm_does_for_each_part(device_host: EngineHost, random_seed: int) -> None:
    batches = 20
    outcome = device_host.do(call(cache_write_probes.random_batches, random_seed, batches))
    assert outcome.failure is None, outcome.failure
    padding = outcome.probed.pop("padding")
    assert outcome.probed == dict.fromkeys(("fit", "as defined", "as vLLM"), batches)
    assert padding > batches


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CASES if CASES[name].rounds],
)
def test_an_engine_writes_at_once_what_vllm_writes_part_by_part(name: str, served: EngineRuns) -> None:
    assert served.worst_difference(name) < EXACT
    facts, written = served(name).facts, served(name).probed
    assert facts["runner_v2"]
    assert facts["backends"] == {"TRITON_ATTN"}
    assert (facts["compiled"] > 0) == (not CASES[name].settings.get("enforce_eager", True))
    assert written["same"]
    assert written["stock"] == 0
    steps = {"chunks": 4, "graphs": 1}.get(name, 2)  # the graph of a decode step replays what was captured
    assert written["at_once"] == SPLIT * steps
    assert written["views"] > 0  # keys of one part lie among those of others, and are not copied


@pytest.mark.long
def test_the_write_is_one_piece_with_the_attentions_where_graphs_are_split(served: EngineRuns) -> None:
    """CUDA graphs are captured of the other pieces: an operator that reads the batch's slots must not be in them."""
    pieces = served("graphs").probed["pieces"]
    written = [piece for piece, _ in pieces if any("write_kv_parts" in one for one in piece)]
    attention = "vllm.unified_attention_with_output"
    assert written == [["vhserve.write_kv_parts", attention, attention]] * SPLIT
    assert all(splits for piece, splits in pieces if any("write_kv" in one or "unified" in one for one in piece))


@pytest.mark.parametrize(
    ("stock", "expected"),
    [
        (["vllm::unified_attention_with_output", CACHE_WRITE], [OWN_WRITE]),
        # vLLM leaves its own write in the pieces, and in the graphs that are captured of them.
        (["vllm::unified_attention_with_output"], []),
        ([], []),
    ],
)
def test_graphs_are_split_where_they_are_at_vllms_own_write(stock: list[str], expected: list[str]) -> None:
    from vllm.config import CompilationConfig

    config = SimpleNamespace(compilation_config=CompilationConfig(splitting_ops=list(stock)))
    for _ in range(2):  # two layers
        split_graphs_at(OWN_WRITE, CACHE_WRITE, config)
    assert config.compilation_config.splitting_ops == [*stock, *expected]


REFUSES_TYPES: Final = "_reject_mismatched_float_kv_cache" in (Installed().read("vllm/config/vllm.py") or "")
REFUSED: Final = pytest.mark.skipif(REFUSES_TYPES, reason="vLLM 0.33 refuses bfloat16 caches of models in float32")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[REFUSED] * (name == "other_cache_type")) for name in CASES if not CASES[name].rounds],
)
def test_other_caches_are_left_to_vllm(name: str, served: EngineRuns) -> None:
    assert served(name).failure is None, served(name).failure
    assert served(name).probed == [False] * SPLIT


def test_kernels_compile_for_a_gpu() -> None:
    """By Triton's own compiler, which needs no GPU; the interpreter takes more than it does."""
    triton = pytest.importorskip("triton")
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this Triton has no compiler for NVIDIA's GPUs")
    done = subprocess.run(
        [sys.executable, "-c", FOR_A_GPU],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "compiled", done.stderr


Tensors = dict[str, list[torch.Tensor]]


def batch(heads: tuple[int, ...] = (1, 3), dtype: torch.dtype = torch.bfloat16) -> Tensors:
    tokens, size, block = 5, 32, 16
    return {
        "keys": [torch.zeros(tokens, count, size, dtype=dtype) for count in heads],
        "values": [torch.zeros(tokens, count, size, dtype=dtype) for count in heads],
        "caches": [torch.zeros(4, count, block, 2 * size, dtype=dtype) for count in heads],
        "slots": [torch.arange(tokens) for _ in heads],
    }


def last(made: Tensors, name: str, changed: torch.Tensor) -> Tensors:
    return {**made, name: [*made[name][:-1], changed]}


def test_what_fits_one_launch() -> None:
    assert fit_one_launch(**batch())
    made = batch()
    key, cache, slots = (made[name][-1] for name in ("keys", "caches", "slots"))
    other = {
        "a quantised cache": last(made, "caches", cache.to(torch.float8_e4m3fn)),
        "a cache of bytes": last(made, "caches", cache.view(torch.uint8)),
        "a cache with scales after its cells": last(made, "caches", torch.zeros(4, 3, 16, 68, dtype=key.dtype)),
        "a cache of other blocks": last(made, "caches", torch.zeros(4, 3, 32, 64, dtype=key.dtype)),
        "a cache of other heads": last(made, "caches", cache[:, :2]),
        "cells that are not in one piece": last(made, "caches", cache.transpose(2, 3).contiguous().transpose(2, 3)),
        "a cache that is not bound": last(made, "caches", torch.tensor([])),
        "heads that are not in one piece": last(made, "keys", key.transpose(0, 1).contiguous().transpose(0, 1)),
        "values of another type": last(made, "values", key.float()),
        "fewer keys than slots": last(made, "keys", key[:4]),
        "other slots than the first part's": last(made, "slots", slots[:4]),
        "slots of another type": last(made, "slots", slots.int()),
        "slots that are not in one piece": last(made, "slots", torch.arange(10)[::2]),
    }
    assert {name for name, one in other.items() if fit_one_launch(**one)} == set()
