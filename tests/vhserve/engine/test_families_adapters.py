"""LoRA adapters and quantised weights of the families, with plans whose heads are gathered.

With an adapter, float32 within 1e-5 of the masked transformers model into which it was merged. With weights and
activations of 8 bits, as close to the masked model of the weights that these stand for as without a plan.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from adapters import rounds_for
from engine_cases import adapter_differences, worst_difference
from engine_host import EngineHost, Job, call
from exactness import EXACT, TELLING
from family_plans import PAPER, mixed_plan, tiny
from quantised_models import quantise
from tiny_families import FAMILIES

from profiles.pruning_plan import PruningPlan

pytestmark = [pytest.mark.vllm, pytest.mark.long]

NAMES = sorted(FAMILIES.keys() | PAPER.keys())
WITHOUT = {
    "llava-onevision": "takes no adapters",
    "qwen3-vl-moe": "are Triton kernels",
}
"""Families whose model takes no adapters on CPUs, and why; the second is in `test_device_engine.py`."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT])
def test_adapters_go_together_with_a_plan(name: str, engine_host: EngineHost, tmp_path: Path) -> None:
    """Requests without the adapter get the model as it is."""
    model = tiny(name, tmp_path)
    worst = adapter_differences(engine_host, model, mixed_plan(model), rounds_for(model.path), max_model_len=2048)
    assert max(worst.without, worst.adapted) < EXACT
    assert worst.telling > TELLING, "the adapter does nothing"


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_adapters_are_refused_where_vllm_takes_none(name: str, engine_host: EngineHost, tmp_path: Path) -> None:
    model = tiny(name, tmp_path)
    settings = {"enable_lora": True, "max_lora_rank": 8, "max_model_len": 2048}
    outcome = engine_host.run(Job(str(model.path), mixed_plan(model).model_dump(mode="json"), settings=settings))
    kind, said = outcome.failure or ("", "")
    assert kind == "FlagRefused"
    assert WITHOUT[name] in said


@pytest.mark.parametrize("name", NAMES)
def test_quantised_weights_go_together_with_a_plan(name: str, engine_host: EngineHost, tmp_path: Path) -> None:
    """Experts stay as they are: vLLM has kernels of 8 bits for them on CPUs with AMX only."""
    model, rounds = tiny(name, tmp_path), rounds_for(tmp_path / name)
    quantise(model.path, tmp_path / "quantised", tmp_path / "rounded")
    rounded, off = replace(model, path=tmp_path / "rounded"), []
    unpruned, plan = PruningPlan.unpruned(model.ref, model.geometry), mixed_plan(model)
    for own in (unpruned, plan):
        content = own.model_dump(mode="json") if own.heads("removed") else None
        outcome = engine_host.run(Job(str(tmp_path / "quantised"), content, rounds, {"max_model_len": 2048}))
        assert outcome.failure is None, outcome.failure[1]
        off.append(worst_difference(rounded.oracle, own, rounds, outcome.answers))
    unmasked = worst_difference(rounded.oracle, unpruned, rounds, outcome.answers)
    print(f"{name}: {off[0]:.2f} off without a plan, {off[1]:.2f} with one, {unmasked:.2f} of the unmasked model")
    assert off[1] < 1.5 * off[0]
    assert 2 * off[1] < unmasked


@pytest.mark.skipif("amx_tile" in Path("/proc/cpuinfo").read_text(), reason="vLLM has the kernel for CPUs with AMX")
def test_experts_that_vllm_has_no_kernel_for_are_refused(engine_host: EngineHost, tmp_path: Path) -> None:
    model = tiny("qwen3-vl-moe", tmp_path)
    quantise(model.path, tmp_path / "quantised", tmp_path / "rounded")
    file = tmp_path / "quantised" / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"]["ignore"].remove("re:.*experts.*")
    file.write_text(json.dumps(config))
    outcome = engine_host.run(Job(str(file.parent), mixed_plan(model).model_dump(mode="json")))
    kind, said = outcome.failure or ("", "")
    assert kind == "ModelNotServable"
    assert "No Int8 MoE backend" in said


def fail_to_build() -> None:
    """Runs in the host: a fault as vLLM builds a model whose weights are not quantised."""
    from vhserve.engine.checks.stock_model import naming_missing_kernels

    with naming_missing_kernels(cast(Any, SimpleNamespace(quant_config=None))):
        raise NotImplementedError("of another kind")


def test_other_faults_are_not_taken_for_missing_kernels(engine_host: EngineHost) -> None:
    assert engine_host.do(call(fail_to_build)).failure == ("NotImplementedError", "of another kind")
