"""What a GPU runs against the masked transformers model: Model Runner V2, metadata built on the device, Triton kernels.

In Triton's interpreter, so that no GPU is needed; CUDA graphs are in `test_device_graphs.py`. Float32 within 1e-5, as
in the other tests of engines. On `cpu` attention is vLLM's for CPUs, on `triton` its Triton kernels.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapters import rounds_for
from engine_cases import Case, EngineRuns, adapter_differences, worst_difference
from engine_host import BLOCK, EngineHost, Round
from engine_prompts import EnginePrompt
from exactness import EXACT, TELLING
from family_plans import mixed_plan, tiny
from oracle import TinyModel
from partial_cases import EVERY, HALF, IMAGE_PLACES, LATE, MIXED, asked
from random_engines import draw_engine
from text_only_probes import QUESTION

pytestmark = pytest.mark.vllm

PATCHES: dict[str, tuple[str, ...]] = {"cpu": (), "triton": ("triton_attention", "views_always")}
"""By attention."""

CHUNKS = {"max_num_batched_tokens": BLOCK, "max_num_seqs": 4}
GROUPED: dict[str, Any] = {"granularity": "kv_group", "text_only": {0: (0, 1), 2: EVERY[:4]}, "removed": {3: (2, 3)}}
SHORT = (
    EnginePrompt(QUESTION, (1,)),
    EnginePrompt("<s>USER: what is there ? <image>", (2,)),
    EnginePrompt("<s>yes no"),
)


SMALL: dict[str, Any] = {"rounds": (Round(SHORT, tokens=3), Round(SHORT[:2], tokens=2, reset=False))}


def device_case(model: str = "mha", **more: Any) -> Case:
    return Case(model, **{"rounds": (asked(), asked(reset=False)), **more})


CASES = {
    "text_only": device_case(**LATE),
    "chunks": device_case(**LATE, settings=CHUNKS),
    "async_scheduling": device_case(
        **LATE, settings={**CHUNKS, "async_scheduling": True}, patches=("async_scheduling",)
    ),
    "evicted": device_case(**MIXED, rounds=(asked(8), asked(8, reset=False))),
    "evicted_async": device_case(
        **MIXED, rounds=(asked(8),), settings={"async_scheduling": True}, patches=("async_scheduling",)
    ),
    # Another prompt fits when the image blocks of the one before are free, and not earlier.
    "blocks_reused_at_once": device_case(
        **HALF,
        rounds=(),
        settings={"num_gpu_blocks_override": 22, "max_model_len": 224, "async_scheduling": True},
        patches=("async_scheduling",),
        probe="partial_probes:reuse",
        admission="stock",
    ),
    "resumed_replies": device_case(**HALF, rounds=(), probe="resumption_probes:resumed_from_the_cache"),
    "preempted_replies": device_case(
        **HALF,
        rounds=(Round(IMAGE_PLACES[:3] * 2, tokens=80), Round(IMAGE_PLACES[:3] * 2, tokens=80, reset=False)),
        settings={"num_gpu_blocks_override": 34, "max_model_len": 256},
        admission="stock",
    ),
    "grouped": device_case("gqa", **GROUPED, **SMALL),
    "grouped_chunks": device_case("gqa", **GROUPED, **SMALL, settings=CHUNKS),
    # A step of one token for each request, some of an image, which text-only heads give nothing to see.
    "trickle": device_case("gqa", **GROUPED, rounds=(), probe="graph_probes:trickle", settings={"max_num_seqs": 4}),
    "grouped_evicted": device_case(
        "gqa",
        granularity="kv_group",
        other={"evict": {0: (0, 1), 1: (2, 3, 4, 5), 2: (2, 3)}, "thinned:2": {3: (0, 1)}},
        text_only={2: (0, 1), 3: (2, 3)},
        removed={2: (4, 5)},
        **SMALL,
    ),
}

QUICK = {
    *(("cpu", name) for name in ("text_only", "chunks", "evicted", "blocks_reused_at_once")),
    ("triton", "grouped"),
}
SLOW_IN_TRITON = {"evicted", "evicted_async", "preempted_replies", "resumed_replies", "blocks_reused_at_once"}
"""Long replies, in which the kernels have nothing to add to the shorter ones of `grouped_evicted`."""
EVERYWHERE = [(on, name) for on in PATCHES for name in CASES if on == "cpu" or name not in SLOW_IN_TRITON]


def marked(on: str, name: str) -> Any:
    return pytest.param(on, name, marks=[] if (on, name) in QUICK else pytest.mark.long)


@pytest.fixture(scope="session")
def served(device_host: EngineHost, models: dict[str, TinyModel]) -> dict[str, EngineRuns]:
    """By attention."""
    return {
        on: EngineRuns(
            device_host, models, {name: replace(one, patches=one.patches + patches) for name, one in CASES.items()}
        )
        for on, patches in PATCHES.items()
    }


@pytest.mark.parametrize(("on", "name"), [marked(*one) for one in EVERYWHERE if CASES[one[1]].rounds])
def test_the_engine_says_what_the_masked_model_says(on: str, name: str, served: dict[str, EngineRuns]) -> None:
    assert served[on].worst_difference(name) < EXACT
    facts = served[on](name).facts
    assert facts["runner_v2"]
    assert facts["backends"] == {"CPU_ATTN" if on == "cpu" else "TRITON_ATTN"}


def test_cases_did_what_they_are_named_for(served: dict[str, EngineRuns]) -> None:
    for name in ("text_only", "evicted"):
        assert sum(answer.cached for answer in served["cpu"](name).answers[1]) > 6 * BLOCK
    assert max(len(answer.prompt_ids) for answer in served["cpu"]("chunks").answers[0]) > 3 * BLOCK


def test_blocks_that_another_request_gets_at_once(served: dict[str, EngineRuns], models: dict[str, TinyModel]) -> None:
    """Nobody tells the worker that a request in its reply has lost blocks."""
    case, model = CASES["blocks_reused_at_once"], models["mha"]
    outcome = served["cpu"]("blocks_reused_at_once")
    assert outcome.facts["async"]
    assert outcome.preemptions > 0
    assert outcome.probed["reused"] > 0
    for prompt, answer in outcome.probed["answers"]:
        assert model.oracle.difference(prompt, answer, case.plan(model)) < EXACT


@pytest.mark.parametrize("on", PATCHES)
def test_images_that_come_by_the_token(on: str, served: dict[str, EngineRuns], models: dict[str, TinyModel]) -> None:
    case, model = CASES["trickle"], models["gqa"]
    probed = served[on]("trickle").probed
    assert probed["steps"] > 3
    for prompt, answer in probed["answers"]:
        assert model.oracle.difference(prompt, answer, case.plan(model)) < EXACT


def test_replies_that_find_their_prompt_in_the_cache(served: dict[str, EngineRuns]) -> None:
    """One of them finds all of it, so that its first step again is of the reply, which has lost the image's blocks."""
    probed = served["cpu"]("resumed_replies").probed
    assert any(found == prompt for prompt, found in probed["came_back"])
    assert probed["calm"] == probed["disturbed"]
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


@pytest.mark.long
def test_replies_were_preempted(served: dict[str, EngineRuns]) -> None:
    assert served["cpu"]("preempted_replies").preemptions > 0


@pytest.mark.long
def test_adapters_of_experts_go_together_with_a_plan(device_host: EngineHost, tmp_path: Path) -> None:
    """Of attention and experts. Experts are Triton kernels where there are adapters; attention is vLLM's for CPUs."""
    model = tiny("qwen3-vl-moe", tmp_path)
    worst = adapter_differences(
        device_host, model, mixed_plan(model), rounds_for(model.path), patches=("triton_adapters",)
    )
    assert max(worst.without, worst.adapted) < EXACT
    assert worst.telling > TELLING, "the adapter does nothing"


ENGINES = {"cpu": int(os.environ.get("RANDOM_DEVICE_ENGINES", "12")), "triton": 3}
SEEDS = [(on, seed) for on, engines in ENGINES.items() for seed in range(engines)]


@pytest.mark.long
@pytest.mark.parametrize(("on", "seed"), SEEDS)
def test_random_engines_are_exact(on: str, seed: int, device_host: EngineHost, models: dict[str, TinyModel]) -> None:
    """`RANDOM_DEVICE_ENGINES` in the environment is how many, on attention for CPUs."""
    drawn = draw_engine(20_000 + seed, models, image_exit=seed % 2 == 1)
    rounds = drawn.job.rounds
    if on == "triton":
        rounds = tuple(replace(one, prompts=one.prompts[:2], tokens=2) for one in rounds)
    outcome = device_host.run(replace(drawn.job, rounds=rounds, patches=drawn.job.patches + PATCHES[on]))
    assert outcome.failure is None, outcome.failure[1]
    worst = worst_difference(models[drawn.model].oracle, drawn.plan, rounds, outcome.answers)
    print(f"seed {seed}: largest difference {worst:.1e}")
    assert worst < EXACT
