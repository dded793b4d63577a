"""Evicted and thinned heads in the engine against the masked transformers model, a case for each feature that stays on.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of every token of a reply, stays below
1e-5. The oracle is teacher-forced: its mask knows which positions are the prompt's and which the reply's.
"""

from dataclasses import replace
from typing import Any

import pytest
from engine_cases import Case, EngineRuns, Heads
from engine_host import BLOCK, EngineHost, EnginePrompt, Job, Round
from exactness import EXACT
from exactness import PROMPTS as EXACT_PROMPTS
from oracle import TinyModel

from profiles.names import Granularity
from profiles.treatments import TREATMENTS
from vhserve.engine.kv_cache.image_spans import image_blocks

pytestmark = pytest.mark.vllm

TELLING = 1e-3

WORDS = ["how", "many", "red", "blue", "green", "circles", "squares", "are", "there", "in", "the", "picture"]


def at(position: int, rest: str = "", image: int = 1) -> EnginePrompt:
    """A prompt whose image starts at a token position; a word is a token."""
    words = " ".join((WORDS * 8)[: position - 1])
    return EnginePrompt(f"<s>{words} <image>{rest}", (image,))


PROMPTS = (*EXACT_PROMPTS, EnginePrompt("<image><image> yes", (1, 4)), at(15), at(40, " how many ?"))
ASKED = (Round(PROMPTS, tokens=8),)


def partial_case(model: str, other: dict[str, Heads], granularity: Granularity = "query_head", **more: Any) -> Case:
    return Case(model, granularity=granularity, other=other, **{"rounds": ASKED, **more})


EVERY = tuple(range(5))
MIXED: dict[str, Any] = {
    "other": {
        "evict": {0: (1,), 1: (0, 2), 2: (0, 1, 2), 3: (1, 3)},
        "evict:2": {1: (4,), 4: (0, 3)},
        "thinned:2": {0: (3, 4), 2: (3, 4), 5: (1,)},
    },
    "text_only": {3: (4,), 4: (1, 2), 5: (2,)},
    "removed": {3: (0,), 4: (4,), 5: (0, 4)},
}

HALF: dict[str, Any] = {"other": {"evict": dict.fromkeys(range(6), (0, 1))}, "removed": dict.fromkeys(range(6), (4,))}

CASES = {
    # The second round finds a warm prefix cache.
    "mixed": partial_case("mha", **MIXED, rounds=(*ASKED, Round(PROMPTS, 8, reset=False)), probe="partial_probes:life"),
    "all_evicted": partial_case("mha", {"evict": dict.fromkeys(range(6), EVERY)}, probe="partial_probes:follow_ups"),
    "half_evicted": partial_case("mha", **HALF, probe="partial_probes:follow_ups"),
    "all_thinned": partial_case("mha", {"thinned:4": dict.fromkeys(range(6), EVERY)}),
    "evicted_to_a_few": partial_case(
        "mha", {"evict:2": dict.fromkeys(range(6), (0, 2, 3, 4))}, probe="partial_probes:several_replies"
    ),
    "chunked_prefill": partial_case(
        "mha",
        **MIXED,
        settings={"max_num_batched_tokens": 40, "max_num_seqs": 4},
        probe="partial_probes:preempt_mid_reply",
    ),
    # A reply that is computed anew begins in the middle of a step's budget, and its prompt's image is there again.
    "preemption": partial_case(
        "mha",
        **HALF,
        rounds=(Round(PROMPTS[:3] * 2, tokens=80), Round(PROMPTS[:3] * 2, tokens=80, reset=False)),
        settings={"num_gpu_blocks_override": 34, "max_model_len": 256},
    ),
    "preemption_in_chunks": partial_case(
        "mha",
        **HALF,
        rounds=(Round(PROMPTS[:3] * 2, tokens=80), Round(PROMPTS[:3] * 2, tokens=80, reset=False)),
        settings={"num_gpu_blocks_override": 34, "max_model_len": 256, "max_num_batched_tokens": 40},
    ),
    "grouped_queries": partial_case(
        "gqa", {"evict": {0: (0, 1), 1: (2, 3, 4, 5)}, "thinned:2": {3: (0, 1)}}, "kv_group"
    ),
    "async_scheduling": partial_case(
        "mha", **MIXED, settings={"async_scheduling": True}, patches=("async_scheduling",)
    ),
}


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, models, CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    worst = served.worst_difference(name)
    print(f"{name}: largest difference {worst:.1e}")
    assert worst < EXACT


@pytest.mark.parametrize("name", CASES)
def test_the_oracle_would_notice_another_treatment(name: str, served: EngineRuns, models: dict[str, TinyModel]) -> None:
    """Heads of the same kind that are full, and evicted ones that are text-only, say something else."""
    case, model = CASES[name], models[CASES[name].model]

    def difference(changed: Case) -> float:
        asked = zip(case.rounds[0].prompts, served(name).answers[0], strict=True)
        return max(model.oracle.difference(*one, changed.plan(model)) for one in asked)

    harsher = {"evict": "text_only", "evict:2": "evict", "thinned:2": "thinned:4", "thinned:4": "thinned:2"}
    for treatment, heads in case.other.items():
        others = {other: own for other, own in case.other.items() if other != treatment}
        assert difference(replace(case, other=others)) > TELLING, f"{treatment} or full"
        text_only = dict(case.text_only)
        if harsher[treatment] == "text_only":
            text_only = {layer: (*text_only.get(layer, ()), *heads.get(layer, ())) for layer in {*text_only, *heads}}
        else:
            others[harsher[treatment]] = heads
        assert difference(replace(case, other=others, text_only=text_only)) > TELLING, f"{treatment} or harsher"


def test_cases_did_what_they_are_named_for(served: EngineRuns) -> None:
    assert sum(answer.cached for answer in served("mixed").answers[1]) > 6 * BLOCK
    assert served("preemption").preemptions > 0
    assert served("preemption_in_chunks").preemptions > 0
    assert served("async_scheduling").facts["async"]


@pytest.mark.parametrize("name", ["all_evicted", "half_evicted"])
def test_a_prompt_that_contains_a_reply_sees_the_image_all_through(
    name: str, served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    """Whatever earlier requests have left in the prefix cache; and replies find none of it."""
    case, model = CASES[name], models[CASES[name].model]
    asked = served(name).probed
    assert asked[1][1].cached >= 2 * BLOCK
    assert asked[3][1].cached >= asked[1][1].cached + 2 * BLOCK  # what the two before computed as a prompt
    for prompt, answer in asked:
        assert model.oracle.difference(prompt, answer, case.plan(model)) < EXACT
    assert asked[0][1].reply_ids == asked[4][1].reply_ids


def test_several_replies_to_one_prompt(served: EngineRuns, models: dict[str, TinyModel]) -> None:
    case, model = CASES["evicted_to_a_few"], models["mha"]
    replies = served("evicted_to_a_few").probed
    assert len({tuple(answer.reply_ids) for _, answer in replies}) == 4
    assert max(model.oracle.difference(prompt, answer, case.plan(model)) for prompt, answer in replies) < EXACT


def test_a_preemption_in_the_middle_of_a_reply_changes_nothing(served: EngineRuns) -> None:
    probed = served("chunked_prefill").probed
    assert probed["calm"] == probed["disturbed"]
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


def test_blocks_held_over_a_request_s_life_are_the_formula_s(served: EngineRuns) -> None:
    probed = served("mixed").probed
    phases = set()
    for step in probed["steps"]:
        blocks, reply = -(-step["computed"] // BLOCK), step["computed"] > step["prompt"]
        image = [range(first, last) for first, last in image_blocks(step["spans"], BLOCK)]
        taken = 0
        for name, table in zip(probed["treatments"], step["tables"], strict=True):
            seen = TREATMENTS[name].seen("reply" if reply else "prompt")
            dropped = {
                index
                for one in image
                for number, index in enumerate(one)
                if index < blocks and (seen.stride is None or number % seen.stride)
            }
            assert {index for index, block in enumerate(table) if block == 0} == dropped
            taken += len(table) - len(dropped)
        assert step["taken"] == taken
        phases.add(reply)
    assert phases == {False, True}
    assert probed["held"]["free"] == probed["held"]["blocks"] - 1


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
