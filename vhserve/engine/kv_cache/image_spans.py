"""Where the image tokens of a request are, in tokens and in KV blocks.

Owns the rule that makes a block an image block: every position of it holds an embedding of an image of this request.
Reads vLLM's live request. Does not know who allocates the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from vllm.v1.request import Request

Spans = tuple[tuple[int, int], ...]
"""Half-open ranges `[start, stop)`, ascending, disjoint and not touching."""

_cache: WeakKeyDictionary[Request, tuple[int, Spans]] = WeakKeyDictionary()
"""Number of a request's features, and the spans that follow from them; an entry ends with its request."""


def merge(spans: Sequence[tuple[int, int]]) -> Spans:
    """Sort half-open ranges and join those that touch or overlap.

    >>> merge([(8, 9), (0, 4), (4, 6)])
    ((0, 6), (8, 9))
    """
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if stop <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def image_spans(request: Request) -> Spans:
    """Positions of the request's prompt that hold image embeddings, in tokens.

    An image's placeholder may have holes (row ends and the like in LLaVA-1.6 relatives): these are text. vLLM gives
    the embedded ranges with inclusive ends (`PlaceholderRange.extract_embeds_range`).
    """
    features = request.mm_features or ()
    # A streaming session appends features to a live request; it never changes one that is there.
    cached = _cache.get(request)
    if cached is not None and cached[0] == len(features):
        return cached[1]
    spans = merge(
        [
            (first, last + 1)
            for feature in features
            if feature.modality == "image"
            for first, last in feature.mm_position.extract_embeds_range()
        ]
    )
    _cache[request] = (len(features), spans)
    return spans


def image_blocks(spans: Spans, block_size: int) -> Spans:
    """Index ranges of the blocks that lie wholly inside one span; `block_size` is in tokens.

    >>> image_blocks(((3, 13),), 4)
    ((1, 3),)
    """
    ranges = ((-(-start // block_size), stop // block_size) for start, stop in spans)
    return tuple((first, last) for first, last in ranges if first < last)


def is_image_block(spans: Spans, index: int, block_size: int) -> bool:
    """Whether block `index` of a request with these image spans holds image tokens only."""
    start, stop = index * block_size, (index + 1) * block_size
    return any(first <= start and stop <= last for first, last in spans)


def count_text_blocks(spans: Spans, first: int, last: int, block_size: int) -> int:
    """How many of the blocks `[first, last)` of a request with these image spans hold at least one text token."""
    if last <= first:
        return 0
    ranges = image_blocks(spans, block_size)
    return last - first - sum(max(0, min(last, stop) - max(first, start)) for start, stop in ranges)
