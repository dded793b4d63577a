"""Which layers share a KV cache group (a lane), so that blocks of one size waste little.

All groups of an engine draw blocks of one size from one pool: the size of the widest group. The heads of each treatment
are spread over as many lanes as make all of them about equally wide. Pure arithmetic on head counts; does not know
vLLM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from profiles.names import TreatmentName
from profiles.planning.layout import LayerLayout
from profiles.planning.summary import USUAL_TEXT_TOKENS
from profiles.treatments import TREATMENTS, Phase
from vhserve.engine.kv_cache.image_spans import image_blocks

MAX_GROUPS = 12
"""Most KV cache groups of a plan: each costs a block table and a metadata build in every step."""

TOLERANCE = 0.02
"""Relative increase of `waste` up to which fewer lanes are preferred to the best choice."""

_SEARCH_NODES = 4_000
"""Most nodes that the search of `spread` visits."""

Partition = tuple[tuple[int, ...], ...]
"""Layers of each lane, ascending."""


@dataclass(frozen=True)
class PromptBlocks:
    """Number of KV blocks of a prompt with at most one image: all of them, and those that are image blocks."""

    blocks: int
    image_blocks: int = 0

    @classmethod
    def with_image(cls, text_tokens: int, image_tokens: int, block_size: int) -> "PromptBlocks":
        """Blocks of a prompt with an image in the middle of its text; `block_size` is in tokens."""
        start = text_tokens // 2
        blocks = -(-(text_tokens + image_tokens) // block_size)
        return cls(
            blocks, sum(last - first for first, last in image_blocks(((start, start + image_tokens),), block_size))
        )

    def kept(self, treatment: TreatmentName, phase: Phase) -> int:
        """How many of them heads of a treatment keep in a phase."""
        return self.blocks - self.image_blocks + TREATMENTS[treatment].kept(phase).count(self.image_blocks)


@dataclass(frozen=True)
class Lanes:
    """Layers of each lane by treatment, and the width of the widest lane: the sum of its layers' KV heads."""

    of: Mapping[TreatmentName, Partition]
    width: int

    def held(self, prompt: PromptBlocks, phase: Phase) -> int:
        """KV heads times blocks that a request with this prompt takes from the pool."""
        return self.width * sum(len(lanes) * prompt.kept(name, phase) for name, lanes in self.of.items())


HeadCounts = Mapping[TreatmentName, Sequence[int]]
"""KV heads of each layer, by treatment."""


def lanes_of(layouts: Sequence[LayerLayout], image_tokens: int, block_size: int) -> Lanes | None:
    """Lanes for a plan's layouts, chosen for the usual prompt with one image; None when no head is partial.

    Parameters
    ----------
    image_tokens
        Usual number of tokens of an image.
    block_size
        Tokens of a KV block.
    """
    heads = kv_heads_of(layouts)
    if not any(TREATMENTS[name].is_masked for name in heads):
        return None
    return choose_lanes(heads, PromptBlocks.with_image(USUAL_TEXT_TOKENS, image_tokens, block_size))


def kv_heads_of(layouts: Sequence[LayerLayout]) -> HeadCounts:
    """KV heads of each layer, for the treatments that have any."""
    counts = {name: [len(layout.kept[name].kv) for layout in layouts] for name in layouts[0].kept}
    return {name: heads for name, heads in counts.items() if any(heads)}


def choose_lanes(heads: HeadCounts, prompt: PromptBlocks) -> Lanes:
    """Choose the lanes of a model.

    Parameters
    ----------
    heads
        Of treatments that have heads.
    prompt
        The usual prompt with an image. While it is computed, while it is answered, and a prompt of text alone count
        alike: the worst of the three is minimised.

    Returns
    -------
    The fewest lanes whose `waste` is at most `TOLERANCE` above the least.
    """
    spreads = {
        name: {n: spread(counts, n) for n in range(1, min(sum(map(bool, counts)), MAX_GROUPS - len(heads) + 1) + 1)}
        for name, counts in heads.items()
    }
    candidates = []
    for chosen in product(*(by_number.values() for by_number in spreads.values())):
        if sum(map(len, chosen)) > MAX_GROUPS:
            continue
        partitions = dict(zip(heads, chosen, strict=True))
        width = max(_widest(heads[name], partition) for name, partition in partitions.items())
        lanes = Lanes(partitions, width)
        candidates.append((waste(lanes, heads, prompt), lanes))
    best = min(candidates, key=lambda candidate: candidate[0])[0]
    good = [(value, lanes) for value, lanes in candidates if value <= best * (1 + TOLERANCE)]
    _, lanes = min(good, key=lambda one: (sum(map(len, one[1].of.values())), one[0]))
    return Lanes({name: _fewer_sizes(heads[name], lanes.of[name], lanes.width) for name in heads}, lanes.width)


def waste(lanes: Lanes, heads: HeadCounts, prompt: PromptBlocks) -> float:
    """What the lanes hold over what the heads need, for the worst phase of an image or text prompt; at least 1."""
    ratios = []
    situations: tuple[tuple[PromptBlocks, Phase], ...] = (
        (prompt, "prompt"),
        (prompt, "reply"),
        (PromptBlocks(1), "prompt"),
    )
    for one, phase in situations:
        needed = sum(sum(counts) * one.kept(name, phase) for name, counts in heads.items())
        ratios.append(lanes.held(one, phase) / needed if needed else 1.0)
    return max(ratios)


def spread(heads: Sequence[int], lanes: int) -> Partition:
    """Partition the layers that have heads into `lanes` lanes, the widest as narrow as can be.

    Longest-first, then a bounded search that is exhaustive for a dozen layers. Layers of one lane are apart where
    widths allow it.
    """
    if lanes == 0:
        return ()
    order = sorted((layer for layer, count in enumerate(heads) if count), key=lambda layer: (-heads[layer], layer))
    loads, greedy = [0] * lanes, {}
    for layer in order:
        lane = min(range(lanes), key=lambda one: (loads[one], one))
        greedy[layer] = lane
        loads[lane] += heads[layer]
    best, best_width = greedy, max(loads)
    floor = max(heads[order[0]], -(-sum(heads) // lanes))
    nodes = _SEARCH_NODES
    chosen: dict[int, int] = {}

    def search(at: int, loads: list[int]) -> None:
        nonlocal best, best_width, nodes
        nodes -= 1
        if best_width == floor or nodes < 0:
            return
        if at == len(order):
            best, best_width = dict(chosen), max(loads)
            return
        tried = set()
        for lane in sorted(range(lanes), key=loads.__getitem__):
            load = loads[lane] + heads[order[at]]
            if load >= best_width or loads[lane] in tried:
                continue
            tried.add(loads[lane])
            chosen[order[at]] = lane
            loads[lane], before = load, loads[lane]
            search(at + 1, loads)
            loads[lane] = before

    search(0, [0] * lanes)
    return _as_partition(best, lanes)


def _fewer_sizes(heads: Sequence[int], lanes: Partition, width: int) -> Partition:
    """Group layers with equal counts when that fits as well: vLLM builds metadata once per lane and page size."""
    regrouped: dict[int, int] = {}
    lane = load = 0
    for layer in sorted((layer for one in lanes for layer in one), key=lambda layer: (-heads[layer], layer)):
        if load + heads[layer] > width:
            lane, load = lane + 1, 0
        if lane >= len(lanes):
            return lanes
        regrouped[layer] = lane
        load += heads[layer]
    candidate = _as_partition(regrouped, len(lanes))
    if not all(candidate) or _sizes(heads, candidate) >= _sizes(heads, lanes):
        return lanes
    return candidate


def _sizes(heads: Sequence[int], lanes: Partition) -> int:
    return sum(len({heads[layer] for layer in lane}) for lane in lanes)


def _widest(heads: Sequence[int], lanes: Partition) -> int:
    return max((sum(heads[layer] for layer in lane) for lane in lanes), default=0)


def _as_partition(lane_of: dict[int, int], lanes: int) -> Partition:
    return tuple(tuple(sorted(layer for layer, one in lane_of.items() if one == lane)) for lane in range(lanes))
