"""Lanes against brute force over all partitions, and against the groups that vLLM itself makes of them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from vllm.v1.core.kv_cache_utils import get_kv_cache_groups
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec
from vllm.v1.kv_cache_layout import KVCacheLayout

from vhserve.engine.kv_cache import lanes
from vhserve.engine.kv_cache import spec as kv_cache_spec
from vhserve.engine.kv_cache.lanes import Lanes, Partition, PromptBlocks, choose_lanes, padded_layers, spread, waste
from vhserve.engine.kv_cache.spec import FullLaneSpec, TextOnlySpec

LLAVA_15 = PromptBlocks.with_image(64, 576, 32)


def partitions(layers: Sequence[int]) -> Iterator[list[list[int]]]:
    """All set partitions."""
    if not layers:
        yield []
        return
    first, *rest = layers
    for partition in partitions(rest):
        yield [[first], *partition]
        for index, lane in enumerate(partition):
            yield [*partition[:index], [first, *lane], *partition[index + 1 :]]


def width(heads: Sequence[int], partition: Sequence[Sequence[int]]) -> int:
    return max((sum(heads[layer] for layer in lane) for lane in partition), default=0)


def used(heads: Sequence[int]) -> list[int]:
    return [layer for layer, count in enumerate(heads) if count]


@pytest.mark.parametrize("case", range(60))
def test_lanes_are_as_good_as_brute_force(case: int) -> None:
    rng = random.Random(case)
    layers = rng.randint(1, 6)
    full = [rng.randint(0, 6) for _ in range(layers)]
    text = [rng.randint(0, 6) for _ in range(layers)]
    if not sum(full) + sum(text):
        text[0] = 1
    prompt = PromptBlocks(rng.randint(2, 40), 0)
    prompt = replace(prompt, text_blocks=rng.randint(1, prompt.blocks))
    every = []
    for a in partitions(used(full)):
        for b in partitions(used(text)):
            candidate = Lanes(tuple(map(tuple, a)), tuple(map(tuple, b)), max(width(full, a), width(text, b)))
            every.append((waste(candidate, full, text, prompt), len(a) + len(b)))
    best = min(value for value, _ in every)
    fewest = min(count for value, count in every if value <= best * (1 + lanes.TOLERANCE))
    chosen = choose_lanes(full, text, prompt)
    assert waste(chosen, full, text, prompt) <= best * (1 + lanes.TOLERANCE)
    assert len(chosen.full) + len(chosen.text) == fewest
    assert sorted(layer for lane in chosen.full for layer in lane) == used(full)
    assert sorted(layer for lane in chosen.text for layer in lane) == used(text)
    assert chosen.width >= max(width(full, chosen.full), width(text, chosen.text))


@pytest.mark.parametrize("case", range(40))
def test_spread_is_optimal_for_a_dozen_layers(case: int) -> None:
    rng = random.Random(1000 + case)
    heads = [rng.randint(0, 9) for _ in range(rng.randint(1, 8))]
    count = rng.randint(1, max(1, len(used(heads))))
    if not used(heads):
        heads[0] = 1
    best = min(width(heads, one) for one in partitions(used(heads)) if len(one) <= count)
    assert width(heads, spread(heads, count)) == best


@pytest.mark.parametrize("share", [1, 2, 3], ids=["25%", "50%", "75%"])
@pytest.mark.parametrize(("layers", "heads"), [(12, 16), (32, 32), (40, 40)])
def test_uniform_plans_waste_next_to_nothing(share: int, layers: int, heads: int) -> None:
    """What is left is 32 layers that three lanes cannot divide."""
    text = [heads * share // 4] * layers
    full = [heads - count for count in text]
    chosen = choose_lanes(full, text, LLAVA_15)
    assert waste(chosen, full, text, LLAVA_15) <= 1.05
    assert (len(chosen.full), len(chosen.text)) == {1: (3, 1), 2: (1, 1), 3: (1, 3)}[share]


@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_llava_16_prompt_holds_next_to_its_ideal(share: float, block_size: int) -> None:
    """Of a 7B model, heads chosen anywhere; the ideal is what heads need in whole blocks."""
    seed = random.randrange(10**6)
    print("seed", seed)
    chosen_heads = set(random.Random(seed).sample(range(32 * 32), round(32 * 32 * share)))
    text = [sum(32 * layer + head in chosen_heads for head in range(32)) for layer in range(32)]
    full = [32 - count for count in text]
    prompt = PromptBlocks.with_image(70, 2304, block_size)
    ideal = sum(full) * prompt.blocks + sum(text) * prompt.text_blocks
    assert choose_lanes(full, text, prompt).held(prompt) <= 1.05 * ideal


def test_late_text_only_heads_split_the_full_ones() -> None:
    full, text = [16] * 8 + [4] * 4, [0] * 8 + [12] * 4
    chosen = choose_lanes(full, text, LLAVA_15)
    assert (len(chosen.full), len(chosen.text), chosen.width) == (3, 1, 48)
    assert waste(chosen, full, text, LLAVA_15) == 1.0


def test_prompt_counts_blocks_of_the_image_alone() -> None:
    assert PromptBlocks.with_image(70, 2304, 32) == PromptBlocks(75, 4)
    assert PromptBlocks.with_image(10, 0, 32) == PromptBlocks(1, 1)


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
    """The trap that `padded_layers` is for: one full lane of two sizes, once each, makes vLLM split all the others."""
    kv_cache_spec.register()
    full, text = [5, 3, 0, 0, 0], [0, 0, 2, 2, 2]
    chosen = Lanes(((0, 1),), ((2, 3, 4),), 8)
    assert padded_layers(text, chosen.text, others=[(full, chosen.full)]) == {4}
    assert vllm_groups(full, text, chosen) == named(chosen)
