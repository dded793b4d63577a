"""Evicted and thinned heads in the engine against the masked transformers model, a case for each feature that stays on.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of every token of a reply, stays below
1e-5. The oracle is teacher-forced: its mask knows which positions are the prompt's and which the reply's.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_cases import Case, EngineRuns, Heads, worst_difference
from engine_host import BLOCK, EngineHost, Job, Round
from engine_prompts import EnginePrompt
from exactness import EXACT
from oracle import TinyModel
from partial_cases import EVERY, HALF, IMAGE_PLACES, MIXED, TELLING, asked, sized

from profiles.names import Granularity
from profiles.treatments import TREATMENTS
from vhserve.engine.kv_cache.image_spans import image_blocks

pytestmark = pytest.mark.vllm

ASKED = (asked(tokens=8),)

CHUNK = 24
"""Tokens of a prompt in a step, where prompts are computed side by side in chunks."""

THREE = EnginePrompt("<s>USER: are <image><image><image> like <image> ? ASSISTANT:", (1, 2, 5, 3))
"""Three adjacent images are one of more than four blocks."""


def partial_case(model: str, other: dict[str, Heads], granularity: Granularity = "query_head", **more: Any) -> Case:
    return Case(model, granularity=granularity, other=other, **{"rounds": ASKED, **more})


ALL_KINDS: dict[str, Any] = {
    "other": {
        "evict": {0: (3,), 3: (3,)},
        "evict:2": {0: (0,), 3: (0,)},
        "evict:4": {0: (1,), 3: (1,)},
        "evict:8": {0: (2,), 3: (2,)},
        "thinned:2": {1: (0,), 4: (0,)},
        "thinned:4": {1: (1,), 4: (1,)},
        "thinned:8": {1: (2,), 4: (2,)},
    },
    "text_only": {1: (3,), 4: (3,)},
    "removed": {2: (0,), 5: (0, 4)},
    "rounds": (Round((*IMAGE_PLACES, THREE), tokens=8),),
    "probe": "partial_probes:life",
}

NEXT_HEADS: dict[str, Heads] = {"evict": {0: (2, 3), 1: (0, 1)}, "evict:8": {1: (4, 5)}, "thinned:4": {2: (0, 1)}}
SMALL_POOL: dict[str, Any] = {
    "rounds": (Round(IMAGE_PLACES[:3] * 2, tokens=80), Round(IMAGE_PLACES[:3] * 2, tokens=80, reset=False)),
    "settings": {"num_gpu_blocks_override": 34, "max_model_len": 256},
    "admission": "stock",
}

CASES = {
    # The second round finds a warm prefix cache.
    "mixed": partial_case("mha", **MIXED, rounds=(*ASKED, asked(8, reset=False))),
    "every_treatment": partial_case("mha", **ALL_KINDS),
    "async_scheduling": partial_case(
        "mha", **ALL_KINDS, settings={"async_scheduling": True}, patches=("async_scheduling",)
    ),
    "all_evicted": partial_case("mha", {"evict": dict.fromkeys(range(6), EVERY)}, probe="partial_probes:follow_ups"),
    "half_evicted": partial_case("mha", **HALF, probe="partial_probes:follow_ups"),
    "all_thinned": partial_case("mha", {"thinned:4": dict.fromkeys(range(6), EVERY)}),
    "evicted_to_a_few": partial_case(
        "mha", {"evict:2": dict.fromkeys(range(6), (0, 2, 3, 4))}, probe="partial_probes:other_ways_to_ask"
    ),
    "chunked_prefill": partial_case(
        "mha",
        **MIXED,
        settings={"max_num_batched_tokens": 40, "max_num_seqs": 4},
        probe="partial_probes:preempt_mid_reply",
    ),
    # A reply that is computed anew begins in the middle of a step's budget, and its prompt's image is there again.
    "preemption": partial_case("mha", **HALF, **SMALL_POOL, probe="partial_probes:structured"),
    "preemption_in_chunks": partial_case(
        "mha", **HALF, **{**SMALL_POOL, "settings": {**SMALL_POOL["settings"], "max_num_batched_tokens": 40}}
    ),
    # Another prompt fits when the image blocks of the one before are free, and not earlier.
    "blocks_reused_at_once": partial_case(
        "mha",
        **HALF,
        settings={"num_gpu_blocks_override": 22, "max_model_len": 224, "async_scheduling": True},
        patches=("async_scheduling",),
        probe="partial_probes:reuse",
        admission="stock",
    ),
    "one_prompt_and_a_bit": partial_case(
        "mha",
        **HALF,
        rounds=(),
        settings={"num_gpu_blocks_override": 15, "max_model_len": 192, "long_prefill_token_threshold": CHUNK},
        probe="partial_probes:half_computed_prompts",
        admission="stock",
    ),
    "grouped_queries": partial_case(
        "gqa",
        {"evict": {0: (0, 1), 1: (2, 3, 4, 5), 2: (2, 3)}, "thinned:2": {3: (0, 1)}},
        "kv_group",
        text_only={2: (0, 1), 3: (2, 3)},
        removed={2: (4, 5)},
    ),
    "grouped_queries_by_query_head": partial_case(
        "gqa", {"evict": {1: (2, 4)}, "evict:2": {3: (0, 1)}}, text_only={2: (2, 5)}, removed={1: (3, 5), 2: (3, 4)}
    ),
    # Adjacent pictures of several tiles each, too.
    "llava_next_sizes": partial_case(
        "next",
        NEXT_HEADS,
        "kv_group",
        text_only={2: (2, 3)},
        removed={0: (4, 5)},
        rounds=(Round((*sized(IMAGE_PLACES), replace(THREE, image_size=(80, 72))), tokens=8),),
        settings={"max_model_len": 1024},
    ),
    "torch_compile": partial_case("mha", **MIXED, settings={"enforce_eager": False}),
}
SLOW = {"torch_compile"}
UNASKED = {"one_prompt_and_a_bit"}
"""Only their probes ask."""
NAMES = [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in CASES if name not in UNASKED]
HARSHER = {
    "evict:2": "evict:4",
    "evict:4": "evict:8",
    "evict:8": "evict",
    "evict": "text_only",
    "thinned:2": "thinned:4",
    "thinned:4": "thinned:8",
    "thinned:8": "text_only",
}


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, models, CASES)


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    assert served.worst_difference(name) < EXACT


def together(*treated: Heads) -> Heads:
    return {layer: sum((tuple(one.get(layer, ())) for one in treated), ()) for layer in set().union(*treated)}


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_would_notice_another_treatment(name: str, served: EngineRuns, models: dict[str, TinyModel]) -> None:
    """Heads of the same kind that are full, and such as see less of the image, say something else."""
    case, model = CASES[name], models[CASES[name].model]

    def difference(changed: Case) -> float:
        replies = zip(case.rounds[0].prompts, served(name).answers[0], strict=True)
        return max(model.oracle.difference(*one, changed.plan(model)) for one in replies)

    for treatment, heads in case.other.items():
        others: dict[str, Heads] = {other: own for other, own in case.other.items() if other != treatment}
        assert difference(replace(case, other=others)) > TELLING, f"{treatment} or full"
        harsher: Mapping[str, Heads] = {"text_only": case.text_only, **others}
        merged = together(harsher.get(HARSHER[treatment], {}), heads)
        if HARSHER[treatment] == "text_only":
            changed = replace(case, other=others, text_only=merged)
        else:
            changed = replace(case, other={**others, HARSHER[treatment]: merged})
        assert difference(changed) > TELLING, f"{treatment} or {HARSHER[treatment]}"


def test_cases_did_what_they_are_named_for(served: EngineRuns) -> None:
    assert sum(answer.cached for answer in served("mixed").answers[1]) > 6 * BLOCK
    assert served("preemption").preemptions > 0
    assert served("preemption_in_chunks").preemptions > 0
    assert served("async_scheduling").facts["async"]
    assert served("blocks_reused_at_once").facts["async"]
    tiles = [len(answer.prompt_ids) for answer in served("llava_next_sizes").answers[0]]
    assert len(set(tiles)) == len(tiles)


@pytest.mark.long
def test_the_compiled_case_was_compiled(served: EngineRuns) -> None:
    assert served("torch_compile").facts["compiled"] > 0


@pytest.mark.parametrize("name", ["all_evicted", "half_evicted"])
def test_a_prompt_that_contains_a_reply_sees_the_image_all_through(
    name: str, served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    """Whatever earlier requests have left in the prefix cache; and replies find none of it."""
    case, model = CASES[name], models[CASES[name].model]
    follow_ups = served(name).probed
    assert follow_ups[1][1].cached >= 2 * BLOCK
    assert follow_ups[3][1].cached >= follow_ups[1][1].cached + 2 * BLOCK  # what the two before computed as a prompt
    for prompt, answer in follow_ups:
        assert model.oracle.difference(prompt, answer, case.plan(model)) < EXACT
    assert follow_ups[0][1].reply_ids == follow_ups[4][1].reply_ids


def test_several_replies_to_one_prompt(served: EngineRuns, models: dict[str, TinyModel]) -> None:
    case, model = CASES["evicted_to_a_few"], models["mha"]
    replies = served("evicted_to_a_few").probed["several"]
    assert len({tuple(answer.reply_ids) for _, answer in replies}) == 4
    assert max(model.oracle.difference(prompt, answer, case.plan(model)) for prompt, answer in replies) < EXACT


@pytest.mark.parametrize("way", ["beams", "scored"])
def test_beams_and_scored_replies_are_prompts(way: str, served: EngineRuns, models: dict[str, TinyModel]) -> None:
    """vLLM sends each step of a beam search as a prompt of its own, and a reply that is to be scored is one, too: every
    token of both sees the image.
    """
    case, model = CASES["evicted_to_a_few"], models["mha"]
    found, plan = served("evicted_to_a_few").probed[way], case.plan(model)
    assert found
    for prompt, answer in found:
        assert len(answer.reply_ids) >= 8
        assert model.oracle.difference(prompt, answer, plan, replies=False) < EXACT
        assert model.oracle.difference(prompt, answer, plan) > TELLING


def test_sessions_are_refused(served: EngineRuns) -> None:
    said = served("evicted_to_a_few").probed["session"]
    assert said.startswith("a session whose input goes on after a reply")
    assert said.count("; ") == 2


def test_a_preemption_in_the_middle_of_a_reply_changes_nothing(served: EngineRuns) -> None:
    probed = served("chunked_prefill").probed
    assert probed["calm"] == probed["disturbed"]
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


def test_structured_replies_that_are_preempted(served: EngineRuns, models: dict[str, TinyModel]) -> None:
    """vLLM's log-probabilities are then of what the expression allows: all but a constant below the model's own."""
    case, model = CASES["preemption"], models["mha"]
    probed = served("preemption").probed
    assert probed["preempted"] > 0
    for prompt, answer in probed["answers"]:
        assert set(answer.reply_ids) <= set(probed["allowed"])
        expected = model.oracle.log_probs(prompt, answer, case.plan(model))
        assert len(answer.reply_ids) == len(expected) == 80
        for row, own in zip(answer.log_probs, expected, strict=True):
            apart = [own[token].item() - row[token] for token in probed["allowed"]]
            assert max(apart) - min(apart) < EXACT
    assert len({tuple(answer.reply_ids) for _, answer in probed["answers"]}) > 1
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


def test_blocks_that_another_request_gets_at_once(served: EngineRuns, models: dict[str, TinyModel]) -> None:
    case, model = CASES["blocks_reused_at_once"], models["mha"]
    probed = served("blocks_reused_at_once").probed
    assert probed["reused"] > 0
    for prompt, answer in probed["answers"]:
        assert model.oracle.difference(prompt, answer, case.plan(model)) < EXACT
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


def test_half_computed_prompts_do_not_wait_for_each_other(served: EngineRuns, models: dict[str, TinyModel]) -> None:
    """In a pool for one prompt and a bit, each prompt in several chunks: within twice the steps of one by one."""
    case, model = CASES["one_prompt_and_a_bit"], models["mha"]
    probed = served("one_prompt_and_a_bit").probed
    assert len(probed["answers"]) == probed["requests"]
    for prompt, answer in probed["answers"]:
        assert model.oracle.difference(prompt, answer, case.plan(model)) < EXACT
    assert probed["together"] > 1
    one = -(-probed["tokens"] // CHUNK) + len(probed["answers"][0][1].reply_ids)
    assert probed["steps"] <= 2 * one * probed["requests"]
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


@pytest.mark.parametrize("name", ["every_treatment", "async_scheduling"])
def test_blocks_held_over_a_request_s_life_are_the_formula_s(name: str, served: EngineRuns) -> None:
    """A scheduler that is a step ahead frees a step later: the end of the prompt is not known to be computed before."""
    probed, late = served(name).probed, int(served(name).facts["async"])
    assert set(probed["treatments"]) == {one.name for one in TREATMENTS.values() if one.computed}
    phases = set()
    for step in probed["steps"]:
        blocks, reply = -(-step["computed"] // BLOCK), step["computed"] > step["prompt"] + late
        image = [range(first, last) for first, last in image_blocks(step["spans"], BLOCK)]
        taken = 0
        for treatment, table in zip(probed["treatments"], step["tables"], strict=True):
            seen = TREATMENTS[treatment].seen("reply" if reply else "prompt")
            dropped = {
                index
                for one in image
                for number, index in enumerate(one)
                if index < blocks and (seen.stride is None or number % seen.stride)
            }
            assert {index for index, block in enumerate(table) if block == 0} == dropped
            assert len(table) == blocks
            taken += len(table) - len(dropped)
        assert step["taken"] == taken
        phases.add(reply)
    assert phases == {False, True}
    assert max(len(one) for one in image) > 4  # so that every treatment keeps another number of them
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


@pytest.mark.long
def test_speculation_from_the_prompt(
    models: dict[str, TinyModel], vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    """With room, and where requests are preempted. In a host of its own, as in test_engine_exact.py."""
    model = models["mha"]
    guess = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    case = replace(CASES["preemption"], rounds=(asked(12), *CASES["preemption"].rounds))
    job = case.job(model)
    host = EngineHost(tmp_path, {**vllm_environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    outcome = host.run(replace(job, settings={**job.settings, "speculative_config": guess}))
    host.close()
    assert outcome.failure is None, outcome.failure[1]
    assert outcome.facts["drafted"] > outcome.facts["accepted"] > 0
    assert outcome.preemptions > 0
    assert worst_difference(model.oracle, case.plan(model), case.rounds, outcome.answers) < EXACT


@pytest.mark.parametrize(
    ("patch", "end"), [("stripped_image_data", "Encoder cache miss"), ("kept_image_data", "12 tokens")]
)
def test_stock_vllm_loses_the_pixels_of_a_preempted_request(
    patch: str, end: str, engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    """Without a plan: it is vLLM's fault, which evicted blocks make likelier, and which `keep_image_data` mends."""
    settings = {"max_num_batched_tokens": 40, "max_num_seqs": 4}
    job = Job(str(models["mha"].path), None, (), settings, (patch,), "partial_probes:resumed_with_a_shorter_hit")
    outcome = engine_host.run(job)
    assert outcome.failure is None, outcome.failure
    assert end in outcome.probed
