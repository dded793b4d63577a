"""Lanes against brute force over all partitions."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from vhserve.engine.kv_cache import lanes
from vhserve.engine.kv_cache.lanes import Lanes, PromptBlocks, choose_lanes, spread, waste

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
