"""Evicted and thinned heads in the engine against the masked transformers model, a case for each feature that stays on.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of every token of a reply, stays below
1e-5. The oracle is teacher-forced: its mask knows which positions are the prompt's and which the reply's.
"""

from typing import Any

import pytest
from engine_cases import Case, EngineRuns, Heads
from engine_host import EngineHost, EnginePrompt, Round
from exactness import EXACT
from exactness import PROMPTS as EXACT_PROMPTS
from oracle import TinyModel

from profiles.names import Granularity

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
    "mixed": partial_case("mha", **MIXED, rounds=(*ASKED, Round(PROMPTS, 8, reset=False))),
    "all_evicted": partial_case("mha", {"evict": dict.fromkeys(range(6), EVERY)}),
    "all_thinned": partial_case("mha", {"thinned:4": dict.fromkeys(range(6), EVERY)}),
    "evicted_to_a_few": partial_case("mha", {"evict:2": dict.fromkeys(range(6), (0, 2, 3, 4))}),
    "chunked_prefill": partial_case("mha", **MIXED, settings={"max_num_batched_tokens": 40, "max_num_seqs": 4}),
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
