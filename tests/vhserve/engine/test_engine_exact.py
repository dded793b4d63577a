"""The engine against the oracle: what a pruned engine says is what a masked transformers model says.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each step, stays below 1e-5. Each
case also shows that the plan matters: a model with other heads removed would say something else.
"""

from pathlib import Path

import pytest
from engine_cases import Case, EngineRuns, worst_difference
from engine_host import BLOCK, EngineHost, EngineOutcome, Job, Round
from engine_prompts import EnginePrompt
from exactness import EXACT, PROMPTS, TELLING
from oracle import TinyModel

from profiles.planning.savings import ideal_concurrency, kv_bytes_per_token
from profiles.pruning_plan import PruningPlan

pytestmark = pytest.mark.vllm


TWICE = (Round(PROMPTS), Round(PROMPTS, reset=False))

UNEVEN = {0: (0, 3), 2: (4,), 3: (0, 1, 2), 5: (1, 2, 3, 4)}

CASES = {
    "different_counts_per_layer_and_a_warm_prefix_cache": Case("mha", UNEVEN, rounds=TWICE),
    "layers_that_lose_every_head": Case("mha", {0: tuple(range(5)), 3: tuple(range(5)), 4: (2,), 5: tuple(range(5))}),
    "grouped_queries_by_kv_group": Case(
        "gqa", {0: (0, 1), 1: (2, 3, 4, 5), 3: tuple(range(6))}, granularity="kv_group"
    ),
    "grouped_queries_by_query_head": Case("gqa", {0: (0, 3, 5), 1: (2, 3), 2: (1, 4, 5, 0)}),
    "mean_compensation": Case("gqa", {0: (0, 1), 1: (1, 2, 4), 3: tuple(range(6))}, mean=True),
    "biases_in_a_checkpoint_of_two_files": Case("biased", {0: (0, 1), 1: (1, 2, 4), 3: tuple(range(6))}, mean=True),
    "chunked_prefill": Case("mha", UNEVEN, settings={"max_num_batched_tokens": 48, "max_num_seqs": 4}),
    "preemption": Case(
        "mha",
        UNEVEN,
        mean=True,
        rounds=(Round(PROMPTS * 2, tokens=40),),
        settings={"num_gpu_blocks_override": 22},
        admission="stock",
    ),
    "async_scheduling": Case("gqa", {1: (0, 1)}, settings={"async_scheduling": True}, patches=("async_scheduling",)),
    "llava_next": Case(
        "next",
        {0: (2, 3), 1: tuple(range(6)), 2: (1, 2, 5)},
        mean=True,
        rounds=(Round(tuple(EnginePrompt(one.text, one.images, (80, 72)) for one in PROMPTS), tokens=3),),
        settings={"max_model_len": 1024},
    ),
    "torch_compile": Case("next", {0: (0, 1), 2: tuple(range(6))}, mean=True, settings={"enforce_eager": False}),
}


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, models, CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_pruned_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    assert sum(len(answers) for answers in served(name).answers) >= len(PROMPTS)
    assert served.worst_difference(name) < EXACT


@pytest.mark.parametrize("name", CASES)
def test_the_oracle_distinguishes_heads(name: str, served: EngineRuns, models: dict[str, TinyModel]) -> None:
    case, model, answer = CASES[name], models[CASES[name].model], served(name).answers[0][0]
    layer, row = next((layer, row) for layer, row in case.removed.items() if len(row) < model.geometry.query_heads)
    heads = [(at, head) for at, others in case.removed.items() for head in others if at != layer]
    shifted = [(layer, (head + 1) % model.geometry.query_heads) for head in row]
    other = PruningPlan.manual(model.ref, model.geometry, removed=heads + shifted)
    assert model.oracle.difference(case.rounds[0].prompts[0], answer, other) > TELLING


@pytest.mark.parametrize("name", CASES)
def test_the_kv_cache_is_as_large_as_the_plan_says(name: str, served: EngineRuns, models: dict[str, TinyModel]) -> None:
    model, outcome = models[CASES[name].model], served(name)
    plan = CASES[name].plan(model)
    assert sum(outcome.kv_bytes.values()) == outcome.blocks * BLOCK * kv_bytes_per_token(plan, 4)
    assert outcome.kv_tokens == outcome.blocks * BLOCK
    kept = [row for row in plan.treatments if "full" in row]
    assert len(outcome.kv_bytes) == len(kept)


def test_cases_did_what_they_are_named_for(served: EngineRuns) -> None:
    first, second = served("different_counts_per_layer_and_a_warm_prefix_cache").answers
    assert all(answer.cached == 0 for answer in first)
    assert sum(answer.cached for answer in second) > 2 * BLOCK
    assert served("preemption").preemptions > 0
    assert max(len(answer.prompt_ids) for answer in served("chunked_prefill").answers[0]) > 48
    assert served("async_scheduling").facts["async"]
    assert not served("chunked_prefill").facts["async"]
    assert served("torch_compile").facts["compiled"] > 0
    assert served("chunked_prefill").facts["compiled"] == 0


def test_each_plan_has_a_compile_cache_of_its_own(served: EngineRuns) -> None:
    # Two models; between the plans of each, only heads differ.
    names = ["different_counts_per_layer_and_a_warm_prefix_cache", "layers_that_lose_every_head"]
    names += ["grouped_queries_by_kv_group", "grouped_queries_by_query_head"]
    assert len({served(name).config_hash for name in names}) == len(names)


@pytest.mark.long
def test_speculation_from_the_prompt_is_exact(
    models: dict[str, TinyModel], vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    """In a host of its own: it imports numba, after which vLLM 0.32 cannot start another engine in that process."""
    model, case = models["mha"], Case("mha", UNEVEN)
    guess = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    asked = (Round(PROMPTS, tokens=12),)
    settings = {"speculative_config": guess}
    host = EngineHost(tmp_path, {**vllm_environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    outcome = host.run(Job(str(model.path), case.plan(model).model_dump(mode="json"), asked, settings))
    host.close()
    assert outcome.failure is None
    assert outcome.facts["drafted"] > 0
    assert worst_difference(model.oracle, case.plan(model), asked, outcome.answers) < EXACT


@pytest.fixture(scope="session")
def stock(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineOutcome:
    """An engine without a plan."""
    return engine_host.run(Job(str(models["mha"].path), None, (Round(PROMPTS),)))


def test_an_empty_plan_changes_nothing(
    stock: EngineOutcome, engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    plan = PruningPlan.unpruned(models["mha"].ref, models["mha"].geometry)
    empty = engine_host.run(Job(str(models["mha"].path), plan.model_dump(mode="json"), (Round(PROMPTS),)))
    assert stock.failure is None
    assert empty.answers == stock.answers  # bit for bit
    assert empty.kv_bytes == stock.kv_bytes
    assert empty.blocks == stock.blocks


@pytest.mark.parametrize("name", ["different_counts_per_layer_and_a_warm_prefix_cache", "layers_that_lose_every_head"])
def test_capacity_grows_by_the_ideal_factor(
    name: str, stock: EngineOutcome, served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    ideal = ideal_concurrency(CASES[name].plan(models["mha"]), text_tokens=10, image_tokens=81)
    assert ideal > 1.3
    assert served(name).kv_tokens / stock.kv_tokens == pytest.approx(ideal, rel=0.01)
