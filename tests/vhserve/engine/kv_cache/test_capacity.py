"""An engine holds as many requests as the formula says, counted in its scheduler and KV cache manager."""

from typing import Any

import pytest
from capacity_probes import QUESTION
from engine_cases import Case
from engine_host import BLOCK, EngineHost, Job, Round
from engine_prompts import IMAGE_TOKEN, EnginePrompt
from oracle import TinyModel

from vhserve.engine.kv_cache.capacity import GroupCounts, groups_of
from vhserve.engine.kv_cache.image_spans import image_blocks
from vhserve.engine.kv_cache.lanes import PromptBlocks

pytestmark = pytest.mark.vllm

HALF = dict.fromkeys(range(6), (0, 1, 2))
ALL = {layer: range(5) for layer in range(6)}
ASYNC = ("async_scheduling",)

# Budgets of a step are small, so that prompts are computed in chunks.
SETTINGS = {
    "kv_cache_memory_bytes": 16 << 20,
    "max_num_seqs": 40,
    "max_num_batched_tokens": 100,
    "enable_prefix_caching": False,
    "disable_chunked_mm_input": False,
    "limit_mm_per_prompt": {"image": 3},
}
GIVEN = {
    "settings": SETTINGS,
    "probe": "capacity_probes:counted",
    "rounds": (Round((EnginePrompt(QUESTION, (1, 1, 1)),)),),
}
CASES = {
    "stock": None,
    "stock, async": None,
    "text-only": Case("mha", text_only=HALF, **GIVEN),
    "text-only, async": Case("mha", text_only=HALF, patches=ASYNC, **GIVEN),
    "text-only and removed": Case("mha", text_only=HALF, removed={5: (3, 4), 4: (4,)}, **GIVEN),
    "evicted": Case("mha", other={"evict": HALF}, **GIVEN),
    "all evicted": Case("mha", other={"evict": ALL}, **GIVEN),
    "evicted, async": Case("mha", other={"evict": HALF}, patches=ASYNC, **GIVEN),
    "thinned": Case("mha", other={"thinned:2": HALF}, **GIVEN),
}

QUICK = ("stock, async", "text-only", "all evicted", "evicted, async")


def blocks_of(ids: list[int]) -> PromptBlocks:
    """Blocks of a prompt by where its image tokens are."""
    spans, start = [], None
    for position, token in enumerate([*ids, 0]):
        if token == IMAGE_TOKEN and start is None:
            start = position
        elif token != IMAGE_TOKEN and start is not None:
            spans.append((start, position))
            start = None
    return PromptBlocks(-(-len(ids) // BLOCK), sum(last - first for first, last in image_blocks(tuple(spans), BLOCK)))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in CASES]
)
def test_held_requests_are_what_the_formula_says(
    name: str, engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    case, model = CASES[name], models["mha"]
    patches = ASYNC if name.endswith("async") else ()
    job = Job(str(model.path), None, patches=patches, **GIVEN) if case is None else case.job(model)
    outcome = engine_host.run(job)
    assert outcome.failure is None, outcome.failure[1]
    (ids,) = (answer.prompt_ids for answer in outcome.answers[0])
    assert 0 < len(ids) % BLOCK < BLOCK - 4, "the first tokens of a reply are to take no block of their own"
    assert outcome.facts["async"] == name.endswith("async")
    probed: dict[str, Any] = outcome.probed
    groups = GroupCounts({"full": 1}) if case is None else groups_of(case.plan(model), BLOCK)
    prompt = blocks_of(ids)
    assert prompt.image_blocks == 5
    computed, answered = groups.blocks(prompt), groups.blocks(prompt, "reply")
    usable = outcome.blocks - 1
    expected = (usable - computed) // answered + 1
    print(f"{name}: {expected} requests of {computed} blocks, {answered} once computed, in {usable}")
    assert 4 < expected < 40
    for held in probed["twice"]:
        assert (held.requests, held.full, held.usable) == (expected, True, usable)
        assert held.blocks == [answered] * expected
        assert held.free == usable - sum(held.blocks)
    assert (probed["few"].requests, probed["few"].full) == (3, False)
    assert probed["after"] == probed["before"]
