"""Text-only heads in the engine against the masked transformers model, one case for each feature that stays on.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each step, stays below 1e-5. The
oracle masks by image blocks of the engine's block size. Each case also shows that it did what it is named for.
"""

from dataclasses import replace
from typing import Any

import pytest
from engine_cases import Case, EngineRuns, Heads, worst_difference
from engine_host import BLOCK, EngineHost, EngineOutcome, Job, Round
from engine_prompts import EnginePrompt
from exactness import EXACT
from oracle import TinyModel
from partial_cases import EVERY, IMAGE_PLACES, TELLING, asked, at, sized

from profiles.names import Granularity
from profiles.planning.layout import layer_layouts
from profiles.pruning_plan import PruningPlan
from vhserve.engine.kv_cache import lanes
from vhserve.engine.kv_cache.capacity import capacity, groups_of
from vhserve.engine.kv_cache.image_spans import image_blocks
from vhserve.engine.weights.projection_choice import WORTHWHILE

pytestmark = pytest.mark.vllm

OTHER_QUESTION = (
    EnginePrompt("<s>USER: <image>\nis there a blue square ? yes no ASSISTANT:", (1,)),
    EnginePrompt("<image>\nwhat", (3,)),
    EnginePrompt("<s>USER: <image>\nhow many red circles are there ? ASSISTANT:", (5,)),
)
ASKED = (asked(),)


def text_only_case(
    model: str, text_only: Heads, removed: Heads | None = None, granularity: Granularity = "query_head", **more: Any
) -> Case:
    return Case(model, removed or {}, text_only, granularity, **{"rounds": ASKED, **more})


MIXED: dict[str, Any] = {
    # A layer that is all full, one all text-only, one without full heads, and counts that differ.
    "text_only": {1: (0, 2, 4), 2: EVERY, 3: (1, 3), 4: (0, 1, 2, 3), 5: (2,)},
    "removed": {3: (0,), 4: (4,), 5: (0, 4)},
}
THREE_LANES = dict.fromkeys(range(6), (0, 2, 3, 4))

CASES = {
    # The second round finds a warm prefix cache: other questions on the same images, or the same prompts.
    "mixed_treatments": text_only_case(
        "mha", **MIXED, rounds=(*ASKED, Round(OTHER_QUESTION, reset=False)), probe="text_only_probes:block_tables"
    ),
    "three_lanes": text_only_case(
        "mha", THREE_LANES, rounds=(*ASKED, asked(reset=False)), probe="text_only_probes:block_tables"
    ),
    "all_text_only": text_only_case("mha", dict.fromkeys(range(6), EVERY), probe="text_only_probes:block_tables"),
    "grouped_queries": text_only_case("gqa", {0: (0, 1), 1: (2, 3, 4, 5), 3: tuple(range(6))}, {2: (0, 1)}, "kv_group"),
    "grouped_queries_by_query_head": text_only_case("gqa", {1: (2, 4)}, {0: (0, 2, 4), 1: (3, 5)}),
    "chunked_prefill": text_only_case("mha", **MIXED, settings={"max_num_batched_tokens": 40, "max_num_seqs": 4}),
    "preemption": text_only_case(
        "mha",
        **MIXED,
        rounds=(Round(IMAGE_PLACES[:3] * 2, tokens=36),),
        settings={"num_gpu_blocks_override": 45, "max_model_len": 256},
        probe="text_only_probes:abort_in_every_state",
        admission="stock",
    ),
    "async_scheduling": text_only_case(
        "mha", **MIXED, settings={"async_scheduling": True}, patches=("async_scheduling",)
    ),
    "llava_next_sizes": text_only_case(
        "next",
        {0: (2, 3), 1: tuple(range(6)), 2: (0, 1)},
        {2: (4, 5)},
        "kv_group",
        rounds=(Round(sized(IMAGE_PLACES)),),
        settings={"max_model_len": 1024},
    ),
    "torch_compile": text_only_case("mha", **MIXED, settings={"enforce_eager": False}),
}
SLOW = {"torch_compile"}
NAMES = [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in CASES]


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, models, CASES)


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    assert served.worst_difference(name) < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_would_notice_full_heads(name: str, served: EngineRuns, models: dict[str, TinyModel]) -> None:
    """So would it text-only heads without image blocks, which differ by the image tokens of mixed blocks only."""
    case, model = CASES[name], models[CASES[name].model]
    prompt, answer = case.rounds[0].prompts[1], served(name).answers[0][1]
    assert model.oracle.difference(prompt, answer, replace(case, text_only={}).plan(model)) > TELLING


def test_cases_did_what_they_are_named_for(served: EngineRuns) -> None:
    assert max(len(answer.prompt_ids) for answer in served("chunked_prefill").answers[0]) > 3 * 40
    other = served("mixed_treatments").answers[1]
    assert other[0].cached >= 2 * BLOCK  # the same image: into the image and past it
    assert other[1].cached >= 2 * BLOCK
    assert other[2].cached == 0  # another image
    assert sum(answer.cached for answer in served("three_lanes").answers[1]) > 12 * BLOCK
    assert served("preemption").preemptions > 0
    assert served("async_scheduling").facts["async"]
    # An image that ends the prompt and fills its last block: the reply starts from a query that text-only heads skip.
    ends_in_image = served("mixed_treatments").answers[0][IMAGE_PLACES.index(at(15))]
    assert len(ends_in_image.prompt_ids) % BLOCK == 0
    assert len(set(ends_in_image.prompt_ids[-BLOCK:])) == 1
    tokens = [len(answer.prompt_ids) for answer in served("llava_next_sizes").answers[0]]
    assert len(set(tokens)) == len(tokens)


@pytest.mark.long
def test_compiled_case_was_compiled(served: EngineRuns) -> None:
    assert served("torch_compile").facts["compiled"] > 0


@pytest.mark.parametrize("name", ["mixed_treatments", "three_lanes", "all_text_only"])
def test_blocks_held_are_the_plans_formula_block_by_block(
    name: str, served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    case, model, outcome = CASES[name], models[CASES[name].model], served(name)
    probed, plan = outcome.probed, case.plan(model)
    kv_text = len(plan.heads("text_only"))
    kv_full = len(plan.heads("full"))
    named = list(zip(probed["heads"], probed["treatments"], strict=True))
    assert sum(heads for heads, treatment in named if treatment == "text_only") == kv_text
    assert sum(heads for heads, treatment in named if treatment == "full") == kv_full
    for held in probed["requests"].values():
        blocks = -(-held["tokens"] // BLOCK)
        image = {
            index
            for index in range(blocks)
            if any(start <= index * BLOCK and (index + 1) * BLOCK <= stop for start, stop in held["spans"])
        }
        assert len(held["spans"]) == 0 or image
        taken = 0
        for table, treatment in zip(held["tables"], probed["treatments"], strict=True):
            assert len(table) == blocks
            expected = image if treatment == "text_only" else set()
            assert {index for index, block in enumerate(table) if block == 0} == expected
            taken += sum(block != 0 for block in table)
        assert held["taken"] == taken
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


@pytest.mark.parametrize("name", ["mixed_treatments", "three_lanes"])
def test_dropped_tokens_are_not_projected_for_text_only_heads(
    name: str, served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    layouts = layer_layouts(CASES[name].plan(models[CASES[name].model]))
    layers = [one for one in layouts if len(one.kept["text_only"].queries) >= WORTHWHILE * max(1, len(one.queries))]
    for held in served(name).probed["requests"].values():
        dropped = BLOCK * sum(last - first for first, last in image_blocks(held["spans"], BLOCK))
        assert sorted(held["dropped"].values()) == [dropped] * 2 * len(layers)


def test_lanes_are_about_equally_wide(served: EngineRuns) -> None:
    """4 of 5 heads text-only: the text-only heads take four lanes beside one of full heads."""
    probed = served("three_lanes").probed
    assert sorted(zip(probed["treatments"], probed["heads"], strict=True))[0] == ("full", 6)
    assert max(probed["heads"]) <= 8
    assert sum(probed["heads"]) == 30


def test_aborts_and_preemptions_leave_nothing_behind(served: EngineRuns) -> None:
    probed = served("preemption").probed
    assert probed["after"] == probed["before"]
    assert probed["after"]["free"] == probed["after"]["blocks"] - 1
    assert probed["preempted"] > 0
    assert {"RUNNING", "WAITING"} <= set(probed["aborted"])


@pytest.mark.parametrize("name", ["mixed_treatments", "three_lanes", "all_text_only"])
def test_the_capacity_that_metrics_state_is_the_engines(
    name: str, served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    """Metrics know the plan and not the engine's groups; the groups must be those that the plan leads to."""
    probed, plan = served(name).probed, CASES[name].plan(models[CASES[name].model])
    groups = groups_of(plan, BLOCK)
    assert groups.of == probed["groups"]
    usable = probed["held"]["blocks"] - 1
    stated = capacity(groups, usable, plan.geometry.image_tokens, BLOCK)
    for held in probed["requests"].values():
        blocks = -(-held["tokens"] // BLOCK)
        dropped = sum(last - first for first, last in image_blocks(held["spans"], BLOCK))
        assert held["taken"] == groups.blocks(lanes.PromptBlocks(blocks, dropped))
    assert stated.image_requests > stated.text_requests


@pytest.fixture(scope="session")
def stock(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineOutcome:
    return engine_host.run(Job(str(models["mha"].path), None, ASKED))


def test_text_prompts_are_bit_identical_to_stock(
    engine_host: EngineHost, stock: EngineOutcome, models: dict[str, TinyModel]
) -> None:
    """With text-only heads that are the last of each layer, so that no head changes its place, and few of them, so that
    projections stay whole.
    """
    model = models["mha"]
    assert 1 / model.geometry.query_heads < WORTHWHILE
    plan = PruningPlan.manual(model.ref, model.geometry, text_only=[(layer, 4) for layer in range(6)])
    outcome = engine_host.run(Job(str(model.path), plan.model_dump(mode="json"), ASKED))
    assert outcome.failure is None
    text = [index for index, prompt in enumerate(IMAGE_PLACES) if not prompt.images]
    assert text
    for index in text:
        assert outcome.answers[0][index] == stock.answers[0][index]
    assert outcome.answers[0][0] != stock.answers[0][0]


@pytest.mark.parametrize("name", ["three_lanes", "all_text_only"])
def test_text_prompts_stay_exact_when_heads_change_places(name: str, served: EngineRuns, stock: EngineOutcome) -> None:
    """Not to the bit: `o_proj` sums over heads in another order, or in two parts."""
    for index, prompt in enumerate(IMAGE_PLACES):
        if prompt.images:
            continue
        steps = zip(served(name).answers[0][index].log_probs, stock.answers[0][index].log_probs, strict=True)
        assert (
            max(abs(ours[token] - theirs[token]) for ours, theirs in steps for token in ours if token in theirs) < EXACT
        )


def test_fp8_kv_cache(engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    """FP8 rounds keys and values, here by up to 6%: prompts of text alone, and all, are as near to the oracle as stock
    vLLM is to its own.
    """
    model, settings = models["mha"], {"kv_cache_dtype": "fp8"}
    case = text_only_case("mha", dict.fromkeys(range(6), (2, 3, 4)))
    plan = case.plan(model)
    stock = engine_host.run(Job(str(model.path), None, ASKED, settings))
    if stock.failure is not None and "AMX" in stock.failure[1]:
        pytest.skip("stock vLLM has no FP8 KV cache on this CPU: it needs AVX512 or AMX")
    ours = engine_host.run(Job(str(model.path), plan.model_dump(mode="json"), ASKED, settings))
    assert (stock.failure, ours.failure) == (None, None)
    assert sum(ours.kv_bytes.values()) / ours.blocks < 0.3 * 6 * 5 * 32 * 2 * 4 * BLOCK
    unpruned = PruningPlan.unpruned(model.ref, model.geometry)
    text = tuple(index for index, prompt in enumerate(IMAGE_PLACES) if not prompt.images)
    for indices in (text, tuple(range(len(IMAGE_PLACES)))):
        asked = (replace(ASKED[0], prompts=tuple(IMAGE_PLACES[index] for index in indices)),)
        stock_far, far = (
            worst_difference(model.oracle, of, asked, [[outcome.answers[0][index] for index in indices]])
            for outcome, of in ((stock, unpruned), (ours, plan))
        )
        print(f"prompts {indices}, from the oracle: stock {stock_far:.2e}, text-only {far:.2e}")
        assert far < 2 * stock_far


REFUSED = {
    "hybrid manager off": ({"disable_hybrid_kv_cache_manager": True}, "--disable-hybrid-kv-cache-manager"),
    "prompt embeds": ({"enable_prompt_embeds": True}, "--enable-prompt-embeds"),
    "other scheduler": ({"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}, "--scheduler-cls"),
    "EAGLE": (
        {"speculative_config": {"method": "eagle", "model": "nowhere", "num_speculative_tokens": 1}},
        "",
    ),
    "KV connector": (
        {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
        "--kv-transfer-config",
    ),
    "a KV cache that only GPUs have": (
        {"kv_cache_dtype": "int4_per_token_head"},
        "--kv-cache-dtype (int4_per_token_head)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_cannot_work_are_refused_at_start(
    name: str, engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    settings, named = REFUSED[name]
    plan = CASES["three_lanes"].plan(models["mha"]).model_dump(mode="json")
    outcome = engine_host.run(Job(str(models["mha"].path), plan, (), settings))
    assert outcome.failure is not None
    assert named in outcome.failure[1]
