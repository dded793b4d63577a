"""Rows of image blocks that leave the forward pass, against the masked transformers model, which computes them all.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each step, stays below 1e-5.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_cases import Case, EngineRuns, worst_difference
from engine_host import BLOCK, EngineHost, Job, Round
from exactness import EXACT
from oracle import TinyModel
from partial_cases import ENDS, EVERY, IMAGE_PLACES, LATE, asked, at, sized
from random_engines import draw_engine
from tiny_families import FAMILIES
from transformers import AutoConfig

from profiles.planning.image_exit import exit_layer
from profiles.pruning_plan import PruningPlan
from profiles.transformers_config import decoder_geometry
from vhserve.engine.checks.kv_offloading import transfer

pytestmark = pytest.mark.vllm

ROWS = "exit_probes:rows_of_layers"


def exit_case(model: str = "mha", **more: Any) -> Case:
    return Case(model, **{"rounds": (asked(tokens=6), Round(ENDS, tokens=6)), "probe": ROWS, **LATE, **more})


CASES = {
    "late_layers": exit_case(rounds=(asked(), Round(ENDS, reset=False), asked(reset=False))),
    "every_layer": exit_case(text_only=dict.fromkeys(range(6), EVERY), removed={}, mean=False),
    # Chunks of less than an image: some are all image, and of these only the last row goes on.
    "chunks_of_image": exit_case(settings={"max_num_batched_tokens": BLOCK, "max_num_seqs": 4}),
    "preemption": exit_case(
        rounds=(Round(IMAGE_PLACES[:3] * 2, tokens=36),),
        settings={"num_gpu_blocks_override": 34, "max_model_len": 256},
        probe="",
        admission="stock",
    ),
    "async_scheduling": exit_case(settings={"async_scheduling": True}, patches=("async_scheduling",)),
    "evicted_before": exit_case(other={"evict": {0: (0,), 2: (0, 2)}, "thinned:2": {1: (4,)}}),
    "gathered": exit_case(surgery="gather"),
    "grouped_queries": exit_case(
        "gqa", granularity="kv_group", text_only={0: (0, 1), 2: (0, 1, 4, 5), 3: tuple(range(6))}, removed={2: (2, 3)}
    ),
    "llava_next_sizes": exit_case(
        "next",
        granularity="kv_group",
        text_only={1: tuple(range(6)), 2: (0, 1, 2, 3)},
        removed={2: (4, 5)},
        rounds=(Round(sized(IMAGE_PLACES), tokens=6),),
        settings={"max_model_len": 1024},
    ),
    "prompt_log_probs": exit_case(rounds=(), probe="exit_probes:scored_prompts"),
    # Rows stay where adapters are chosen by the row.
    "adapters": exit_case(
        settings={"enable_lora": True, "max_lora_rank": 8}, surgery="gather", probe="exit_probes:layer_of_exit"
    ),
    "torch_compile": exit_case(settings={"enforce_eager": False}, probe="exit_probes:compiled_stages"),
    # Some steps have a single row behind the exit.
    "torch_compile_chunks": exit_case(
        settings={"enforce_eager": False, "max_num_batched_tokens": BLOCK, "max_num_seqs": 4},
        probe="exit_probes:compiled_stages",
    ),
}
FIRST = {"every_layer": 0, "grouped_queries": 2, "llava_next_sizes": 1}
"""First layer behind the exit; 3 elsewhere."""
COMPILED = ("torch_compile", "torch_compile_chunks")
NAMES = [
    pytest.param(name, marks=pytest.mark.long) if name in COMPILED else name
    for name, case in CASES.items()
    if case.rounds
]


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, models, CASES)


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    assert served.worst_difference(name) < EXACT


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.probe == ROWS])
def test_rows_of_image_blocks_are_not_computed_behind_the_exit(name: str, served: EngineRuns) -> None:
    """Counted at the feed-forward networks: all rows in front of the exit; behind it those outside of image blocks."""
    probed, first = served(name).probed, FIRST.get(name, 3)
    for rows in probed["rows"]:
        assert len(set(rows[:first])) <= 1
        assert len(set(rows[first:])) == 1
    # And a row for each chunk that ends inside of an image.
    assert probed["kept"] <= sum(rows[-1] for rows in probed["rows"]) < probed["kept"] + len(probed["rows"])
    if first:
        assert sum(rows[0] for rows in probed["rows"]) == probed["tokens"] > probed["kept"]
    assert min(min(rows) for rows in probed["rows"]) >= 1


def test_cases_did_what_they_are_named_for(served: EngineRuns) -> None:
    assert served("preemption").preemptions > 0
    assert served("async_scheduling").facts["async"]
    assert any(rows[-1] == 1 < rows[0] for rows in served("chunks_of_image").probed["rows"])
    assert sum(answer.cached for answer in served("late_layers").answers[2]) > 6 * BLOCK


def test_rows_stay_where_adapters_are_chosen_by_the_row(served: EngineRuns) -> None:
    assert served("adapters").probed is None


def test_log_probabilities_of_a_prompt_are_those_of_all_its_rows(
    served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    """While a request asks for them, rows stay; what follows an image is predicted from a row of it."""
    model, plan = models["mha"], CASES["prompt_log_probs"].plan(models["mha"])
    for prompt, answer in served("prompt_log_probs").probed:
        assert model.oracle.difference(prompt, answer, plan, replies=False) < EXACT


@pytest.mark.long
def test_speculation_from_the_prompt(
    models: dict[str, TinyModel], vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    """Several queries of a reply in a step, also behind a prompt that was loaded whole and ends in an image block.

    In a host of its own, as in test_engine_exact.py.
    """
    model = models["mha"]
    guess = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    settings = {"speculative_config": guess, "kv_offloading_size": 0.05, "kv_transfer_config": transfer()}
    rounds = (asked(tokens=12), Round((at(15),), tokens=6))
    case = exit_case(rounds=rounds, settings=settings, probe="exit_probes:layer_of_exit")
    host = EngineHost(tmp_path, {**vllm_environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    outcome = host.run(case.job(model))
    host.close()
    assert outcome.failure is None, outcome.failure[1]
    assert outcome.facts["accepted"] > 0
    assert outcome.probed == 3
    assert outcome.answers[1][0].cached == len(outcome.answers[1][0].prompt_ids) == 3 * BLOCK
    assert worst_difference(model.oracle, case.plan(model), case.rounds, outcome.answers) < EXACT


@pytest.mark.long
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_cases_have_two_compiled_stages(name: str, served: EngineRuns) -> None:
    assert served(name).probed == {"decoder": True, "late": True}


def exit_plan(model: TinyModel) -> PruningPlan:
    """No head of the last half of the layers sees an image, and some of those before do."""
    geometry = model.geometry
    first, size = geometry.layers // 2, geometry.group_size
    late = [(layer, head) for layer in range(first, geometry.layers) for head in range(geometry.query_heads)]
    removed = [head for head in late if head[0] == geometry.layers - 1 and head[1] < size]
    text_only = [(0, head) for head in range(size)] + [head for head in late if head not in removed]
    return PruningPlan.manual(model.ref, geometry, granularity="kv_group", text_only=text_only, removed=removed)


FAMILY_CASES = [
    *(pytest.param(name, True, marks=[] if name == "qwen3-vl" else [pytest.mark.long], id=name) for name in FAMILIES),
    # Rotary positions of three axes; in the second, visual features in the first layers.
    *(pytest.param(name, False, marks=pytest.mark.long, id=f"{name}-compiled") for name in ("qwen2.5-vl", "qwen3-vl")),
]


@pytest.mark.parametrize(("name", "eager"), FAMILY_CASES)
def test_every_family(name: str, eager: bool, engine_host: EngineHost, tmp_path: Path) -> None:
    path = FAMILIES[name].make(tmp_path / name)
    model = TinyModel(path, decoder_geometry(AutoConfig.from_pretrained(path), 64), FAMILIES[name].architecture)
    prompts = [
        replace(one, image_size=(2 * one.image_size[0], 2 * one.image_size[1])) for one in FAMILIES[name].prompts
    ]
    plan, rounds = exit_plan(model), (Round(tuple(prompts), tokens=3), Round(tuple(prompts[:2]), tokens=3, reset=False))
    settings = {"max_model_len": 2048, "max_num_batched_tokens": 96, "max_num_seqs": 4, "enforce_eager": eager}
    job = Job(str(path), plan.model_dump(mode="json"), rounds, settings, probe="exit_probes:layer_of_exit")
    outcome = engine_host.run(job)
    assert outcome.failure is None, outcome.failure[1]
    worst = worst_difference(model.oracle, plan, rounds, outcome.answers)
    print(f"{name}: largest difference {worst:.1e}")
    assert worst < EXACT
    levels = len(getattr(AutoConfig.from_pretrained(path).vision_config, "deepstack_visual_indexes", ()))
    assert outcome.probed == max(model.geometry.layers // 2, levels)


EXITS = int(os.environ.get("RANDOM_EXITS", "20"))


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.long] * (seed >= 3)) for seed in range(EXITS)])
def test_random_engines_with_an_exit(seed: int, engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    """`RANDOM_EXITS` in the environment is how many."""
    drawn = draw_engine(10_000 + seed, models, image_exit=True)
    assert exit_layer(drawn.plan) is not None
    outcome = engine_host.run(drawn.job)
    assert outcome.failure is None, outcome.failure[1]
    worst = worst_difference(models[drawn.model].oracle, drawn.plan, drawn.job.rounds, outcome.answers)
    print(f"seed {seed}: largest difference {worst:.1e}")
    assert worst < EXACT
