"""Heads chosen behind a layer's projections, in the engine against the masked transformers model.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each token of a reply, stays below
1e-5; with quantised weights, as close as the quantised model without a plan.
"""

from pathlib import Path
from typing import Any

import pytest
from engine_cases import Case, EngineRuns, Heads, adapter_differences, worst_difference
from engine_host import EngineHost, Job, Round
from engine_prompts import EnginePrompt
from exactness import EXACT, PROMPTS
from oracle import TinyModel
from quantised_models import quantise
from tiny_models import make_tiny_llava

from profiles.geometry import ModelGeometry

pytestmark = pytest.mark.vllm

EVERY = tuple(range(5))
MIXED: dict[str, Any] = {
    "other": {"evict": {0: (1,), 1: (0, 2), 2: (0, 1, 2)}, "thinned:2": {0: (3, 4), 5: (1,)}},
    "text_only": {2: (3,), 3: EVERY, 4: (1, 2), 5: (2,)},
    "removed": {0: (0,), 4: (4,), 5: (0, 4)},
    "mean": True,
    "rounds": (Round(PROMPTS, tokens=6), Round(PROMPTS, tokens=6, reset=False)),
}


def gathered(model: str, removed: Heads | None = None, **more: Any) -> Case:
    return Case(model, removed or {}, surgery="gather", **more)


CASES = {
    "mixed": gathered("mha", **MIXED),
    "grouped_queries_and_a_layer_without_heads": gathered(
        "gqa", {0: (0, 1), 1: (1, 2, 4), 3: tuple(range(6))}, mean=True
    ),
    "removed_with_zero": gathered("gqa", {0: (0, 3, 5), 3: tuple(range(6))}),
    "biases_in_a_checkpoint_of_two_files": gathered("biased", {0: (0, 1), 3: tuple(range(6))}, mean=True),
    "text_only_by_kv_group": gathered(
        "gqa", {2: (0, 1)}, text_only={0: (0, 1), 1: (2, 3, 4, 5), 3: tuple(range(6))}, granularity="kv_group"
    ),
    "chunked_prefill": gathered("mha", **MIXED, settings={"max_num_batched_tokens": 40, "max_num_seqs": 4}),
    "llava_next": gathered(
        "next",
        {0: (2, 3), 1: tuple(range(6))},
        text_only={2: (0, 1)},
        granularity="kv_group",
        rounds=(Round(tuple(EnginePrompt(one.text, one.images, (80, 72)) for one in PROMPTS), tokens=3),),
        settings={"max_model_len": 1024},
    ),
    "torch_compile": gathered("mha", **MIXED, settings={"enforce_eager": False}),
}
SLOW = {"torch_compile", "llava_next"}
NAMES = [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in CASES]


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, models, CASES)


@pytest.mark.parametrize("name", NAMES)
def test_a_gathered_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    worst = served.worst_difference(name)
    print(f"{name}: largest difference {worst:.1e}")
    assert worst < EXACT


SIZES = {"layers": 3, "query_heads": 6, "kv_heads": 3, "head_size": 32}
GROUPS: dict[str, Any] = {
    "removed": {0: (0, 1)},
    "text_only": {1: (2, 3, 4, 5), 2: (0, 1)},
    "granularity": "kv_group",
    "mean": True,
    "rounds": (Round(PROMPTS, tokens=4),),
}


def small(path: Path) -> TinyModel:
    return TinyModel(path, ModelGeometry(**SIZES, hidden_size=96, image_tokens=81))


def test_adapters_go_together_with_a_plan(engine_host: EngineHost, tmp_path: Path) -> None:
    source = make_tiny_llava(tmp_path / "model", **SIZES, hidden=96, intermediate=160)
    case = Case("", **GROUPS)
    worst = adapter_differences(engine_host, small(source), case.plan(small(source)), case.rounds)
    assert max(worst.without, worst.adapted) < EXACT
    assert worst.telling > 0.1, "the adapter does nothing"


def test_adapters_are_refused_where_heads_are_cut_out(engine_host: EngineHost, tmp_path: Path) -> None:
    source = make_tiny_llava(tmp_path / "model", **SIZES, hidden=96, intermediate=160)
    plan = Case("", **GROUPS).plan(small(source)).model_dump(mode="json")
    kind, text = engine_host.run(
        Job(str(source), plan, settings={"enable_lora": True, "max_lora_rank": 8}, surgery="slice")
    ).failure or ("", "")
    assert kind == "FlagRefused"
    assert "--enable-lora" in text


def test_quantised_weights_go_together_with_a_plan(engine_host: EngineHost, tmp_path: Path) -> None:
    source = make_tiny_llava(tmp_path / "model", **SIZES, hidden=96, intermediate=160)
    quantise(source, tmp_path / "quantised", tmp_path / "rounded")
    case, rounded = Case("", **GROUPS), small(tmp_path / "rounded")
    off = []
    for plan in (Case("").plan(rounded), case.plan(rounded)):
        content = plan.model_dump(mode="json") if plan.heads("removed") else None
        outcome = engine_host.run(Job(str(tmp_path / "quantised"), content, case.rounds))
        assert outcome.failure is None, outcome.failure[1]
        off.append(worst_difference(rounded.oracle, plan, case.rounds, outcome.answers))
    print(f"activations of 8 bits: {off[0]:.2f} off without a plan, {off[1]:.2f} with one")
    assert off[1] < 1.5 * off[0]


@pytest.mark.parametrize("scheme", ["gptq", "awq"])
def test_weights_of_four_bits_go_together_with_a_plan(scheme: str, engine_host: EngineHost, tmp_path: Path) -> None:
    """In float16, as vLLM computes with them."""
    source = make_tiny_llava(tmp_path / "model", **SIZES, hidden=96, intermediate=160)
    quantise(source, tmp_path / "quantised", tmp_path / "rounded", scheme)
    case, rounded = Case("", **GROUPS), small(tmp_path / "rounded")
    off = []
    for plan in (Case("").plan(rounded), case.plan(rounded)):
        content = plan.model_dump(mode="json") if plan.heads("removed") else None
        outcome = engine_host.run(Job(str(tmp_path / "quantised"), content, case.rounds, {"dtype": "float16"}))
        assert outcome.failure is None, outcome.failure[1]
        off.append(worst_difference(rounded.oracle, plan, case.rounds, outcome.answers))
    unrounded = worst_difference(small(source).oracle, plan, case.rounds, outcome.answers)
    print(f"{scheme}: {off[0]:.1e} off without a plan, {off[1]:.1e} with one, {unrounded:.1e} of the unrounded weights")
    assert off[1] < 3 * off[0]
    assert 5 * max(off) < unrounded


def test_weights_that_vllm_rounds_go_together_with_a_plan(engine_host: EngineHost, tmp_path: Path) -> None:
    """To FP8 with a scale for each output, the one such method that vLLM has kernels of on any CPU; the vision tower's
    are rounded too. The projector's stay: its input is a slice, which vLLM's kernel takes of one picture only.
    """
    source = make_tiny_llava(tmp_path / "model", **SIZES, hidden=96, intermediate=160)
    case, model = Case("", **GROUPS), small(source)
    unpruned, plan = Case("").plan(model), case.plan(model)
    config = {"ignore": ["*multi_modal_projector*"]}
    settings = {"dtype": "bfloat16", "quantization": "fp8_per_channel", "quantization_config": config}
    off = []
    for own in (unpruned, plan):
        content = own.model_dump(mode="json") if own.heads("removed") else None
        outcome = engine_host.run(Job(str(source), content, case.rounds, settings))
        assert outcome.failure is None, outcome.failure[1]
        off.append(worst_difference(model.oracle, own, case.rounds, outcome.answers))
    unmasked = worst_difference(model.oracle, unpruned, case.rounds, outcome.answers)
    print(f"FP8: {off[0]:.2f} off without a plan, {off[1]:.2f} with one, {unmasked:.2f} of the model as it is")
    assert off[1] < 1.5 * off[0]
    assert 2 * off[1] < unmasked


def test_heads_are_not_cut_out_of_quantised_weights(engine_host: EngineHost, tmp_path: Path) -> None:
    source = make_tiny_llava(tmp_path / "model", **SIZES, hidden=96, intermediate=160)
    quantise(source, tmp_path / "quantised", tmp_path / "rounded")
    plan = Case("", **GROUPS).plan(small(tmp_path / "rounded"))
    job = Job(str(tmp_path / "quantised"), plan.model_dump(mode="json"), surgery="slice")
    kind, text = engine_host.run(job).failure or ("", "")
    assert kind == "ModelNotServable"
    assert "decoder layer 0" in text
    assert "--surgery gather" in text
