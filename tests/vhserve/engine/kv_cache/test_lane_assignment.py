"""Lanes with their padding against the groups that vLLM itself makes of them."""

import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from vllm.v1.core.kv_cache_utils import get_kv_cache_groups
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec
from vllm.v1.kv_cache_layout import KVCacheLayout

from profiles.planning.layout import LayerLayout, TreatedHeads
from vhserve.engine.kv_cache import spec as kv_cache_spec
from vhserve.engine.kv_cache.lane_assignment import LaneAssignment, LayerLanes, assign_lanes, padded_layers
from vhserve.engine.kv_cache.lanes import Lanes, Partition, PromptBlocks, choose_lanes
from vhserve.engine.kv_cache.spec import FullLaneSpec, TextOnlySpec

LLAVA_15 = PromptBlocks.with_image(64, 576, 32)


def vllm_groups(full: Sequence[int], text: Sequence[int], chosen: Lanes) -> set[frozenset[str]]:
    """The groups that vLLM makes when layers report the specs that these lanes ask for."""
    specs: dict[str, KVCacheSpec] = {}
    padded_full = padded_layers(full, chosen.full, others=[(text, chosen.text)])
    padded_text = padded_layers(text, chosen.text, others=[(full, chosen.full)])
    for layer in range(len(full)):
        for kind, counts, cls, partition, padded in (
            ("full", full, FullLaneSpec, chosen.full, padded_full),
            ("text", text, TextOnlySpec, chosen.text, padded_text),
        ):
            if counts[layer]:
                stock = FullAttentionSpec(block_size=16, num_kv_heads=counts[layer], head_size=32, dtype=torch.float16)
                spec = cls.of(stock, lane=next(i for i, lane in enumerate(partition) if layer in lane))
                if layer in padded:
                    spec = replace(spec, page_size_padded=spec.page_size_bytes + 256)
                specs[f"{layer}.{kind}"] = spec
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        cache_config=SimpleNamespace(get_resolved_kv_cache_layout=lambda: KVCacheLayout.BLHNC),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
    )
    return {frozenset(group.layer_names) for group in get_kv_cache_groups(config, specs)}


def named(chosen: Lanes) -> set[frozenset[str]]:
    def names(kind: str, partition: Partition) -> set[frozenset[str]]:
        return {frozenset(f"{layer}.{kind}" for layer in lane) for lane in partition}

    return names("full", chosen.full) | names("text", chosen.text)


@pytest.mark.parametrize("case", range(150))
def test_vllm_makes_exactly_these_groups(case: int) -> None:
    kv_cache_spec.register()
    rng = random.Random(2000 + case)
    layers, few = rng.randint(1, 14), [rng.randint(0, 6) for _ in range(rng.randint(1, 3))]
    full = [rng.choice(few) for _ in range(layers)]
    text = [rng.choice(few) for _ in range(layers)]
    if not any(text):
        text[-1] = 2
    chosen = choose_lanes(full, text, LLAVA_15)
    assert vllm_groups(full, text, chosen) == named(chosen)


def test_without_padding_vllm_would_split_a_lane() -> None:
    """The case that `padded_layers` is for: one full lane of two sizes, once each, makes vLLM split all the others."""
    kv_cache_spec.register()
    full, text = [5, 3, 0, 0, 0], [0, 0, 2, 2, 2]
    chosen = Lanes(((0, 1),), ((2, 3, 4),), 8)
    assert padded_layers(text, chosen.text, others=[(full, chosen.full)]) == {4}
    assert vllm_groups(full, text, chosen) == named(chosen)


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
    assert assigned == (LayerLanes(lane, None), LayerLanes(None, lane), LayerLanes(None, None))
