"""KV blocks in the host's memory: what an engine says after it loaded them is what the masked model says.

Float32, within 1e-5, as in `test_engine_exact`. Between two rounds the pool forgets every block, or has given it to
others, so that what is found was loaded; how much that is, is asserted in tokens and in bytes.
"""

from itertools import groupby
from typing import Any

import pytest
from engine_cases import Case, EngineRuns, worst_difference
from engine_host import BLOCK, Answer, EngineHost, Job, Round
from engine_prompts import IMAGE_TOKEN, EnginePrompt
from exactness import EXACT, PROMPTS
from oracle import TinyModel
from partial_cases import EVERY, IMAGE_PLACES, asked
from random_engines import draw_engine

from profiles.treatments import FULL, TREATMENTS
from vhserve.engine.checks.kv_offloading import transfer
from vhserve.engine.kv_cache.image_spans import count_kept

pytestmark = pytest.mark.vllm

OFFLOADING: dict[str, Any] = {"kv_offloading_size": 0.05, "kv_transfer_config": transfer()}
STOCK = {name: value for name, value in transfer().items() if name == "kv_connector_extra_config"}
TWICE = (asked(), asked())
"""The pool forgets everything before each round; the host's memory does not."""

UNEVEN = {0: (0, 3), 2: (4,), 3: (0, 1, 2), 5: (1, 2, 3, 4)}
MIXED = {1: (0, 2, 4), 2: EVERY, 3: (1, 3), 4: (0, 1, 2, 3), 5: (2,)}
OTHERS = tuple(EnginePrompt(f"<image>\n{word} yes", (11 + seed,)) for seed, word in enumerate(("how", "red") * 6))

TOO_SMALL: dict[str, Any] = {
    "rounds": (Round((*IMAGE_PLACES, *OTHERS[:2]), tokens=70),),
    "settings": {"num_gpu_blocks_override": 30, "max_model_len": 256},
    "admission": "stock",
}
"""Replies that outgrow the pool, whose requests begin with nothing cached."""


def case(model: str, **more: Any) -> Case:
    settings = {**OFFLOADING, **more.pop("settings", {})}
    return Case(model, **{"rounds": TWICE, "settings": settings, "probe": "offload_probes:offloaded", **more})


CASES = {
    "removed": case("mha", removed=UNEVEN),
    "text_only": case("mha", removed={3: (0,), 4: (4,)}, text_only=MIXED),
    "three_lanes_in_chunks": case(
        "mha",
        text_only=dict.fromkeys(range(6), (0, 2, 3, 4)),
        settings={"max_num_batched_tokens": 40, "max_num_seqs": 4},
    ),
    "no_full_heads": case("mha", text_only=dict.fromkeys(range(6), EVERY)),
    "thinned_and_grouped": case(
        "gqa", removed={2: (0, 1)}, other={"thinned:2": {0: (0, 1), 1: (2, 3, 4, 5)}}, granularity="kv_group"
    ),
    "evicted": case("mha", text_only={1: (0, 1)}, other={"evict": {2: EVERY, 4: (1, 2)}, "evict:2": {3: (0, 3)}}),
    "without_prefix_caching": case("mha", text_only=MIXED, settings={"enable_prefix_caching": False}),
    "given_away_by_the_pool": case(
        "mha",
        text_only=MIXED,
        rounds=(Round(PROMPTS), Round(OTHERS, reset=False), Round(PROMPTS, reset=False)),
        settings={"num_gpu_blocks_override": 30, "max_model_len": 256},
    ),
    "preemption": case("mha", removed={3: (0,)}, text_only=MIXED, **TOO_SMALL),
    "evicted_before_it_is_copied": case(
        "mha",
        other={"evict": MIXED},
        rounds=(Round((*IMAGE_PLACES, *OTHERS), tokens=12), Round(IMAGE_PLACES, tokens=2)),
        settings={"num_gpu_blocks_override": 22, "max_model_len": 224},
        patches=("late_copies",),
        admission="stock",
    ),
    "evicted_before_it_is_stored": case(
        "mha",
        other={"evict": dict.fromkeys(range(6), EVERY)},
        rounds=(Round(PROMPTS[:1]),),
        settings={"num_gpu_blocks_override": 12, "max_model_len": 256},
        probe="offload_probes:stored_late",
    ),
    "resumed_in_its_reply": case(
        "mha",
        other={"evict": dict.fromkeys(range(6), EVERY)},
        rounds=(Round(PROMPTS[:1]),),
        probe="offload_probes:resumed_in_its_reply",
    ),
    "preemption_of_evicted": case("mha", other={"evict": MIXED}, **TOO_SMALL),
}
AT_REST = [name for name, one in CASES.items() if one.probe == "offload_probes:offloaded" and not one.patches]
TWICE_ASKED = [name for name, one in CASES.items() if one.rounds is TWICE]


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, models, CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    assert served.worst_difference(name) < EXACT


@pytest.mark.parametrize("name", TWICE_ASKED)
def test_whole_blocks_of_prompts_are_loaded_and_image_blocks_that_heads_drop_are_not(
    name: str, served: EngineRuns
) -> None:
    outcome = served(name)
    again, found = outcome.answers[1], outcome.probed
    assert [answer.cached for answer in again] == [len(answer.prompt_ids) // BLOCK * BLOCK for answer in again]
    blocks = sum(
        kept_blocks(answer, treatment) * count for answer in again for treatment, count in found["groups"].items()
    )
    print(f"{name}: {blocks} blocks in {found['groups']}")
    assert found["loaded"] == blocks * found["block_bytes"] > 0
    assert len(found["keys"]) == blocks


def kept_blocks(answer: Answer, treatment: str) -> int:
    """Whole blocks of a prompt that a group of heads of a treatment keeps while it is computed."""
    runs, position = [], 0
    for token, run in groupby(answer.prompt_ids):
        length = len(list(run))
        runs += [(position, position + length)] * (token == IMAGE_TOKEN)
        position += length
    seen = TREATMENTS[treatment].seen_in_prompt
    return count_kept(tuple(runs), 0, len(answer.prompt_ids) // BLOCK, BLOCK, seen)


@pytest.mark.parametrize("name", AT_REST)
def test_nothing_is_held_when_all_requests_have_ended(name: str, served: EngineRuns) -> None:
    assert (served(name).probed["unfinished"], served(name).probed["held"]) == (0, 0)


@pytest.mark.parametrize("name", ["text_only", "evicted"])
def test_both_parts_of_the_connector_know_every_group(name: str, served: EngineRuns) -> None:
    """vLLM 0.33 sorts groups by kind in the worker's part, too."""
    assert len(served(name).probed["groups"]) > 1
    assert served(name).probed["known"] == [True, True]


def test_what_the_pool_gave_to_others_is_loaded(served: EngineRuns) -> None:
    first, _, last = served("given_away_by_the_pool").answers
    assert [answer.cached for answer in first] == [0] * len(first)
    assert [answer.cached for answer in last] == [len(answer.prompt_ids) // BLOCK * BLOCK for answer in last]
    assert served("given_away_by_the_pool").probed["hits"] >= 2 * BLOCK


@pytest.mark.parametrize("name", ["preemption", "preemption_of_evicted"])
def test_a_preempted_prompt_is_loaded_and_not_computed_again(name: str, served: EngineRuns) -> None:
    outcome = served(name)
    assert outcome.preemptions > 0
    assert all(answer.cached == 0 for answer in outcome.answers[0])
    print(f"{name}: {outcome.preemptions:.0f} preemptions, {outcome.probed['loaded'] // outcome.probed['block_bytes']}")
    assert outcome.probed["loaded"] > 0


def test_no_two_plans_and_no_plan_share_a_block(
    engine_host: EngineHost, models: dict[str, TinyModel], served: EngineRuns
) -> None:
    """Three engines with one KV cache group each, asked the same."""
    model, asked_of = models["mha"], CASES["removed"]
    other = case("mha", removed={1: (1,)}).job(model)
    stock = Job(str(model.path), None, TWICE, {**OFFLOADING, "kv_transfer_config": STOCK}, probe=asked_of.probe)
    found = [served("removed").probed, *(engine_host.run(job).probed for job in (other, stock))]
    assert [one["groups"] for one in found] == [{FULL.name: 1}] * 3
    keys = [set(one["keys"]) for one in found]
    assert [len(one) for one in keys] == [20, 20, 20]
    assert len(set.union(*keys)) == 60


def test_an_engine_does_not_take_vllm_s_connector_for_the_plan_s(
    engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    plan = CASES["removed"].plan(models["mha"]).model_dump(mode="json")
    failure = engine_host.run(Job(str(models["mha"].path), plan, (), {"kv_offloading_size": 0.05})).failure
    assert failure is not None
    assert failure[0] == "FlagRefused"
    assert "--kv-transfer-config" in failure[1]


def test_blocks_that_were_evicted_before_they_could_be_stored_are_not_stored(
    served: EngineRuns, models: dict[str, TinyModel]
) -> None:
    answer, model = served("evicted_before_it_is_stored").probed, models["mha"]
    plan = CASES["evicted_before_it_is_stored"].plan(model)
    assert model.oracle.difference(PROMPTS[0], answer, plan) < EXACT
    assert answer.cached == BLOCK  # the next one is of the image alone, and was missing


def test_what_was_stored_of_a_prompt_is_not_loaded_into_a_reply(served: EngineRuns) -> None:
    """Evicted heads see the image in a prompt, and not in the same tokens as a reply."""
    found = served("resumed_in_its_reply").probed
    prompt = len(served("resumed_in_its_reply").answers[0][0].prompt_ids)
    assert found["difference"] < EXACT
    assert found["loaded"] == [prompt // BLOCK * found["block_bytes"]] * 2


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_random_engines(seed: int, engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    """Random plans, chunks and pools, with room in the host's memory for all blocks or for few, copied late."""
    drawn = draw_engine(seed, models, offloads=True)
    outcome = engine_host.run(drawn.job)
    assert outcome.failure is None, outcome.failure[1]
    worst = worst_difference(models[drawn.model].oracle, drawn.plan, drawn.job.rounds, outcome.answers)
    print(
        f"seed {seed}: {worst:.1e}, {outcome.probed['hits']:.0f} tokens loaded, {outcome.preemptions:.0f} preemptions"
    )
    assert worst < EXACT
