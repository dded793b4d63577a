"""Image exit on Model Runner V2, whose model state knows on the host which rows are kept, as on a GPU.

In Triton's interpreter (`test_device_engine`); float32 within 1e-5 of the masked transformers model.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_cases import Case, EngineRuns, worst_difference
from engine_host import BLOCK, EngineHost, Job, Round
from exactness import EXACT
from oracle import TinyModel
from partial_cases import ENDS, LATE, asked
from tiny_families import FAMILIES
from transformers import AutoConfig

from profiles.pruning_plan import PruningPlan
from profiles.transformers_config import decoder_geometry

pytestmark = pytest.mark.vllm


def exit_case(**more: Any) -> Case:
    return Case(
        "mha",
        **{"rounds": (asked(tokens=4), Round(ENDS[:2], tokens=4)), "probe": "exit_probes:rows_of_layers"} | LATE | more,
    )


CASES = {
    "cpu": exit_case(),
    "cpu_chunks": exit_case(settings={"max_num_batched_tokens": BLOCK, "max_num_seqs": 4}),
    "triton": exit_case(rounds=(Round(ENDS[:2], tokens=2),), patches=("triton_attention",)),
    "prompt_log_probs": exit_case(rounds=(), probe="exit_probes:scored_prompts"),
    "token_log_probs": exit_case(rounds=(), probe="exit_probes:scored_tokens"),
    "torch_compile": exit_case(settings={"enforce_eager": False}, probe="exit_probes:compiled_stages"),
    "torch_compile_chunks": exit_case(
        settings={"enforce_eager": False, "max_num_batched_tokens": BLOCK, "max_num_seqs": 4},
        probe="exit_probes:compiled_stages",
    ),
}
LONG = ("triton", "torch_compile", "torch_compile_chunks")
NAMES = [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name, case in CASES.items() if case.rounds]


@pytest.fixture(scope="session")
def served(device_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(device_host, models, CASES)


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    assert served.worst_difference(name) < EXACT
    assert served(name).facts["runner_v2"]


@pytest.mark.parametrize("name", ["cpu", "cpu_chunks", pytest.param("triton", marks=pytest.mark.long)])
def test_rows_of_image_blocks_are_not_computed_behind_the_exit(name: str, served: EngineRuns) -> None:
    """Counted at the feed-forward networks."""
    probed = served(name).probed
    assert all(len(set(rows[:3])) == len(set(rows[3:])) == 1 for rows in probed["rows"])
    assert probed["kept"] <= sum(rows[-1] for rows in probed["rows"]) < probed["kept"] + len(probed["rows"])
    assert sum(rows[0] for rows in probed["rows"]) == probed["tokens"] > probed["kept"]


@pytest.mark.parametrize("name", ["prompt_log_probs", "token_log_probs"])
def test_log_probabilities_of_a_prompt_are_those_of_all_its_rows(
    name: str, served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    """While a request that asks for them has its prompt computed, rows stay: for the likeliest tokens or given ones."""
    model, plan = models["mha"], CASES[name].plan(models["mha"])
    for prompt, answer in served(name).probed:
        assert model.oracle.difference(prompt, answer, plan, replies=False) < EXACT


@pytest.mark.long
@pytest.mark.parametrize("name", ["torch_compile", "torch_compile_chunks"])
def test_compiled_cases_have_two_compiled_stages(name: str, served: EngineRuns) -> None:
    assert served(name).probed == {"decoder": True, "late": True}


@pytest.mark.long
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe"])
def test_families(name: str, eager: bool, device_host: EngineHost, tmp_path: Path) -> None:
    """Rotary positions of three axes, visual features in the first layers, and experts."""
    path = FAMILIES[name].make(tmp_path / name)
    model = TinyModel(path, decoder_geometry(AutoConfig.from_pretrained(path), 64), FAMILIES[name].architecture)
    geometry = model.geometry
    late = [
        (layer, head) for layer in range(geometry.layers // 2, geometry.layers) for head in range(geometry.query_heads)
    ]
    plan = PruningPlan.manual(model.ref, geometry, granularity="kv_group", text_only=late)
    prompts = [
        replace(one, image_size=(2 * one.image_size[0], 2 * one.image_size[1])) for one in FAMILIES[name].prompts
    ]
    rounds = (Round(tuple(prompts), tokens=3), Round(tuple(prompts[:2]), tokens=3, reset=False))
    settings = {"max_model_len": 2048, "max_num_batched_tokens": 96, "max_num_seqs": 4, "enforce_eager": eager}
    job = Job(str(path), plan.model_dump(mode="json"), rounds, settings, probe="exit_probes:layer_of_exit")
    outcome = device_host.run(job)
    assert outcome.failure is None, outcome.failure[1]
    worst = worst_difference(model.oracle, plan, rounds, outcome.answers)
    print(f"{name}: largest difference {worst:.1e}")
    assert worst < EXACT
    assert outcome.probed is not None
