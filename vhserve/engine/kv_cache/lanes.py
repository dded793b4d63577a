"""Which layers share a KV cache group (a lane), so that blocks of one size waste little.

All groups of an engine draw blocks of one size from one pool: the size of the widest group. Full heads and text-only
heads are each spread over as many lanes as make all of them about equally wide. Pure arithmetic on head counts; does
not know vLLM.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from profiles.planning.layout import LayerLayout
from profiles.planning.summary import USUAL_TEXT_TOKENS
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
    """Number of KV blocks of a prompt: all of them, and those that text-only heads keep."""

    blocks: int
    text_blocks: int

    @classmethod
    def with_image(cls, text_tokens: int, image_tokens: int, block_size: int) -> "PromptBlocks":
        """Blocks of a prompt with an image in the middle of its text; `block_size` is in tokens."""
        start = text_tokens // 2
        blocks = -(-(text_tokens + image_tokens) // block_size)
        dropped = sum(last - first for first, last in image_blocks(((start, start + image_tokens),), block_size))
        return cls(blocks, blocks - dropped)


@dataclass(frozen=True)
class Lanes:
    """Layers of each lane, and the width of the widest lane: the sum of its layers' KV heads."""

    full: Partition
    text: Partition
    width: int

    def held(self, prompt: PromptBlocks) -> int:
        """KV heads times blocks that a request with this prompt takes from the pool."""
        return self.width * (len(self.full) * prompt.blocks + len(self.text) * prompt.text_blocks)


def lanes_of(layouts: Sequence[LayerLayout], image_tokens: int, block_size: int) -> Lanes | None:
    """Lanes for a plan's layouts, chosen for the usual prompt with one image; None when no head is text-only.

    Parameters
    ----------
    image_tokens
        Usual number of tokens of an image.
    block_size
        Tokens of a KV block.
    """
    full, text = [len(layout.kv_full) for layout in layouts], [len(layout.kv_text) for layout in layouts]
    if not any(text):
        return None
    return choose_lanes(full, text, PromptBlocks.with_image(USUAL_TEXT_TOKENS, image_tokens, block_size))


def choose_lanes(full: Sequence[int], text: Sequence[int], prompt: PromptBlocks) -> Lanes:
    """Choose the lanes of a model.

    Parameters
    ----------
    full, text
        Per layer, the KV heads that keep all tokens, and those that keep text only.
    prompt
        The usual prompt with an image. A prompt of text alone counts as much: the worse of both is minimised.

    Returns
    -------
    The fewest lanes whose `waste` is at most `TOLERANCE` above the least.
    """
    candidates = []
    most_full, most_text = sum(heads > 0 for heads in full), sum(heads > 0 for heads in text)
    full_by_count = {n: spread(full, n) for n in _counts(most_full)}
    text_by_count = {n: spread(text, n) for n in _counts(most_text)}
    for full_lanes in full_by_count.values():
        for text_lanes in text_by_count.values():
            if len(full_lanes) + len(text_lanes) > MAX_GROUPS:
                continue
            width = max(_widest(full, full_lanes), _widest(text, text_lanes))
            lanes = Lanes(full_lanes, text_lanes, width)
            candidates.append((waste(lanes, full, text, prompt), lanes))
    best = min(candidates, key=lambda candidate: candidate[0])[0]
    good = [(value, lanes) for value, lanes in candidates if value <= best * (1 + TOLERANCE)]
    _, lanes = min(good, key=lambda one: (len(one[1].full) + len(one[1].text), one[0]))
    return Lanes(_fewer_sizes(full, lanes.full, lanes.width), _fewer_sizes(text, lanes.text, lanes.width), lanes.width)


def waste(lanes: Lanes, full: Sequence[int], text: Sequence[int], prompt: PromptBlocks) -> float:
    """What the lanes hold over what the heads need, for the worse of an image and a text prompt; at least 1."""
    ratios = []
    for one in (prompt, PromptBlocks(1, 1)):
        needed = sum(full) * one.blocks + sum(text) * one.text_blocks
        ratios.append(lanes.held(one) / needed if needed else 1.0)
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


def _counts(layers: int) -> range:
    return range(1, min(layers, MAX_GROUPS - 1) + 1) if layers else range(1)


def _widest(heads: Sequence[int], lanes: Partition) -> int:
    return max((sum(heads[layer] for layer in lane) for lane in lanes), default=0)


def _as_partition(lane_of: dict[int, int], lanes: int) -> Partition:
    return tuple(tuple(sorted(layer for layer, one in lane_of.items() if one == lane)) for lane in range(lanes))
