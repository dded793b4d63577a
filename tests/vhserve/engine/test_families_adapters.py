"""LoRA adapters and quantised weights of the families, with plans whose heads are gathered.

With an adapter, float32 within 1e-5 of the masked transformers model into which it was merged. With weights and
activations of 8 bits, as close to the masked model of the weights that these stand for as without a plan.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from adapters import make_adapter, rounds_for
from engine_cases import worst_difference
from engine_host import EngineHost, Job
from exactness import EXACT, TELLING
from family_plans import mixed_plan, tiny
from quantised_models import quantise
from tiny_families import FAMILIES

from profiles.pruning_plan import PruningPlan

pytestmark = [pytest.mark.vllm, pytest.mark.long]

WITHOUT = {"llava-onevision"}
"""Families whose model in vLLM takes no adapters."""
UNTESTED = {"qwen3-vl-moe"}
"""Experts with LoRA are Triton kernels in vLLM, which no CPU runs."""


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - WITHOUT - UNTESTED))
def test_adapters_go_together_with_a_plan(name: str, engine_host: EngineHost, tmp_path: Path) -> None:
    """Requests without the adapter get the model as it is."""
    model, rounds = tiny(name, tmp_path), rounds_for(tmp_path / name)
    make_adapter(model.path, tmp_path / "adapter", tmp_path / "merged")
    merged, plan = replace(model, path=tmp_path / "merged"), mixed_plan(model)
    settings = {"enable_lora": True, "max_lora_rank": 8, "max_model_len": 2048}
    job = Job(str(model.path), plan.model_dump(mode="json"), rounds, settings, probe="adapters:answers_with_adapter")
    outcome = engine_host.run(job)
    assert outcome.failure is None, outcome.failure[1]
    worst = [
        worst_difference(one.oracle, plan, rounds, answers)
        for one, answers in ((model, outcome.answers), (merged, [outcome.probed]))
    ]
    print(f"{name}: largest difference {worst[0]:.1e} without the adapter, {worst[1]:.1e} with it")
    assert max(worst) < EXACT
    assert worst_difference(model.oracle, plan, rounds, [outcome.probed]) > TELLING, "the adapter does nothing"


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_adapters_are_refused_where_vllm_takes_none(name: str, engine_host: EngineHost, tmp_path: Path) -> None:
    model = tiny(name, tmp_path)
    settings = {"enable_lora": True, "max_lora_rank": 8, "max_model_len": 2048}
    outcome = engine_host.run(Job(str(model.path), mixed_plan(model).model_dump(mode="json"), settings=settings))
    kind, said = outcome.failure or ("", "")
    assert kind == "ValueError"
    assert "does not support LoRA" in said


@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen3-vl", "internvl-qwen3", "mistral3"])
def test_quantised_weights_go_together_with_a_plan(name: str, engine_host: EngineHost, tmp_path: Path) -> None:
    model, rounds = tiny(name, tmp_path), rounds_for(tmp_path / name)
    quantise(model.path, tmp_path / "quantised", tmp_path / "rounded")
    rounded, off = replace(model, path=tmp_path / "rounded"), []
    for plan in (PruningPlan.unpruned(model.ref, model.geometry), mixed_plan(model)):
        content = plan.model_dump(mode="json") if plan.heads("removed") else None
        outcome = engine_host.run(Job(str(tmp_path / "quantised"), content, rounds, {"max_model_len": 2048}))
        assert outcome.failure is None, outcome.failure[1]
        off.append(worst_difference(rounded.oracle, plan, rounds, outcome.answers))
    print(f"{name}: activations of 8 bits: {off[0]:.2f} off without a plan, {off[1]:.2f} with one")
    assert off[1] < 1.5 * off[0]
