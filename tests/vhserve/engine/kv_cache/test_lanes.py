"""Lanes against brute force over all partitions."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pytest

from profiles.treatments import TREATMENTS
from vhserve.engine.kv_cache import lanes
from vhserve.engine.kv_cache.lanes import HeadCounts, Lanes, Partition, PromptBlocks, choose_lanes, spread, waste

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


def widest(heads: HeadCounts, lanes: Mapping[str, Partition]) -> int:
    return max(width(heads[name], partition) for name, partition in lanes.items())


@pytest.mark.parametrize("case", range(80))
def test_lanes_are_as_good_as_brute_force(case: int) -> None:
    rng = random.Random(case)
    names = rng.choice([["full", "text_only"], ["evict"], ["full", "evict", "text_only"], ["full", "evict:2", "evict"]])
    layers = rng.randint(1, 6 if len(names) < 3 else 4)
    drawn = {name: [rng.randint(0, 6) for _ in range(layers)] for name in names}
    drawn[names[-1]][0] = max(1, drawn[names[-1]][0])
    heads = {name: counts for name, counts in drawn.items() if any(counts)}
    blocks = rng.randint(2, 40)
    prompt = PromptBlocks(blocks, rng.randint(0, blocks - 1))
    every = []
    for chosen in product(*(partitions(used(counts)) for counts in heads.values())):
        of = {name: tuple(map(tuple, one)) for name, one in zip(heads, chosen, strict=True)}
        every.append((waste(Lanes(of, widest(heads, of)), heads, prompt), sum(map(len, chosen))))
    best = min(value for value, _ in every)
    fewest = min(count for value, count in every if value <= best * (1 + lanes.TOLERANCE))
    found = choose_lanes(heads, prompt)
    assert waste(found, heads, prompt) <= best * (1 + lanes.TOLERANCE)
    assert sum(map(len, found.of.values())) == fewest
    for name, counts in heads.items():
        assert sorted(layer for lane in found.of[name] for layer in lane) == used(counts)
    assert found.width >= widest(heads, found.of)


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
    split = {"full": full, "text_only": text}
    chosen = choose_lanes(split, LLAVA_15)
    assert waste(chosen, split, LLAVA_15) <= 1.05
    assert (len(chosen.of["full"]), len(chosen.of["text_only"])) == {1: (3, 1), 2: (1, 1), 3: (1, 3)}[share]


@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_llava_16_prompt_holds_next_to_its_ideal(share: float, block_size: int, random_seed: int) -> None:
    """Of a 7B model, heads chosen anywhere; the ideal is what heads need in whole blocks."""
    chosen_heads = set(random.Random(random_seed).sample(range(32 * 32), round(32 * 32 * share)))
    text = [sum(32 * layer + head in chosen_heads for head in range(32)) for layer in range(32)]
    full = [32 - count for count in text]
    prompt = PromptBlocks.with_image(70, 2304, block_size)
    ideal = sum(full) * prompt.blocks + sum(text) * (prompt.blocks - prompt.image_blocks)
    assert choose_lanes({"full": full, "text_only": text}, prompt).held(prompt, "prompt") <= 1.05 * ideal


def test_late_text_only_heads_split_the_full_ones() -> None:
    heads = {"full": [16] * 8 + [4] * 4, "text_only": [0] * 8 + [12] * 4}
    chosen = choose_lanes(heads, LLAVA_15)
    assert (len(chosen.of["full"]), len(chosen.of["text_only"]), chosen.width) == (3, 1, 48)
    assert waste(chosen, heads, LLAVA_15) == 1.0


def test_heads_keep_blocks_by_treatment_and_phase() -> None:
    prompt = PromptBlocks(75, 71)
    kept = {name: (prompt.kept(name, "prompt"), prompt.kept(name, "reply")) for name in TREATMENTS}
    assert kept == {
        "full": (75, 75),
        "evict:2": (75, 40),
        "evict:4": (75, 22),
        "evict:8": (75, 13),
        "evict": (75, 4),
        "thinned:2": (40, 40),
        "thinned:4": (22, 22),
        "thinned:8": (13, 13),
        "text_only": (4, 4),
        "removed": (4, 4),  # no group has removed heads
    }


def test_prompt_counts_blocks_of_the_image_alone() -> None:
    assert PromptBlocks.with_image(70, 2304, 32) == PromptBlocks(75, 71)
    assert PromptBlocks.with_image(10, 0, 32) == PromptBlocks(1, 0)
