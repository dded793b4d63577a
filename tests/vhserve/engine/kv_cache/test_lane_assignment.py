"""Lanes with their padding against the groups that vLLM itself makes of them."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec
from vllm.v1.kv_cache_layout import KVCacheLayout

from profiles.planning.layout import LayerLayout, TreatedHeads
from vhserve.engine.kv_cache import spec as kv_cache_spec
from vhserve.engine.kv_cache.lane_assignment import LaneAssignment, assign_lanes, padded_layers
from vhserve.engine.kv_cache.lanes import HeadCounts, Lanes, PromptBlocks, choose_lanes

try:
    from vllm.v1.core.kv_cache_planning import get_kv_cache_groups
except ImportError:  # vLLM 0.32
    from vllm.v1.core.kv_cache_utils import get_kv_cache_groups
from vhserve.engine.kv_cache.spec import FullLaneSpec, PartialSpec

LLAVA_15 = PromptBlocks.with_image(64, 576, 32)


def vllm_groups(heads: HeadCounts, chosen: Lanes) -> set[frozenset[str]]:
    """The groups that vLLM makes when layers report the specs that these lanes ask for."""
    specs: dict[str, KVCacheSpec] = {}
    padded = padded_layers(heads, chosen.of)
    for name, counts in heads.items():
        for layer, count in enumerate(counts):
            if not count:
                continue
            stock = FullAttentionSpec(block_size=16, num_kv_heads=count, head_size=32, dtype=torch.float16)
            lane = next(i for i, lane in enumerate(chosen.of[name]) if layer in lane)
            spec: KVCacheSpec = FullLaneSpec.of(stock, lane) if name == "full" else PartialSpec.of(stock, name, lane)
            if layer in padded[name]:
                spec = replace(spec, page_size_padded=spec.page_size_bytes + 256)  # type: ignore[call-arg]
            specs[f"{layer}.{name}"] = spec
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        cache_config=SimpleNamespace(get_resolved_kv_cache_layout=lambda: KVCacheLayout.BLHNC),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
    )
    return {frozenset(group.layer_names) for group in get_kv_cache_groups(config, specs)}


def named(chosen: Lanes) -> set[frozenset[str]]:
    return {frozenset(f"{layer}.{name}" for layer in lane) for name, lanes in chosen.of.items() for lane in lanes}


@pytest.mark.parametrize("case", range(200))
def test_vllm_makes_exactly_these_groups(case: int) -> None:
    kv_cache_spec.register()
    rng = random.Random(2000 + case)
    layers, few = rng.randint(1, 14), [rng.randint(0, 6) for _ in range(rng.randint(1, 3))]
    names = ["full", "text_only", *rng.sample(["evict", "evict:4", "thinned:2"], rng.choice([0, 0, 1, 2]))]
    drawn = {name: [rng.choice(few) for _ in range(layers)] for name in names}
    if not any(drawn["text_only"]):
        drawn["text_only"][-1] = 2
    heads = {name: counts for name, counts in drawn.items() if any(counts)}
    chosen = choose_lanes(heads, LLAVA_15)
    assert vllm_groups(heads, chosen) == named(chosen)


def test_without_padding_vllm_would_split_a_lane() -> None:
    """The case that `padded_layers` is for: one full lane of two sizes, once each, makes vLLM split all the others."""
    kv_cache_spec.register()
    heads = {"full": [5, 3, 0, 0, 0], "text_only": [0, 0, 2, 2, 2]}
    chosen = Lanes({"full": ((0, 1),), "text_only": ((2, 3, 4),)}, 8)
    assert padded_layers(heads, chosen.of)["text_only"] == {4}
    assert vllm_groups(heads, chosen) == named(chosen)


def test_each_layer_gets_the_lanes_of_the_heads_that_it_has() -> None:
    full, text, none = (
        LayerLayout.of(full=TreatedHeads((0, 1), (0, 1))),
        LayerLayout.of(text_only=TreatedHeads((0, 1), (0, 1))),
        LayerLayout.of(),
    )
    assert assign_lanes([full, full], image_tokens=576, block_size=32) is None
    assigned = assign_lanes([full, text, none], image_tokens=576, block_size=32)
    assert assigned is not None
    lane = LaneAssignment(0, padded=False)
    assert assigned == ({"full": lane}, {"text_only": lane}, {})
