"""Heads chosen behind a layer's projections, in the engine against the masked transformers model.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each token of a reply, stays below
1e-5. Cases are those of sliced engines.
"""

from typing import Any

import pytest
from engine_cases import Case, EngineRuns, Heads
from engine_host import EngineHost, EnginePrompt, Round
from exactness import EXACT, PROMPTS
from oracle import TinyModel

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
