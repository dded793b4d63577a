"""Where the image tokens of a request are, in tokens and in KV blocks.

Owns the rule that makes a block an image block (every position of it holds an embedding of an image of this request),
and a block's number within its image. Reads vLLM's live request. Does not know who allocates the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from profiles.treatments import ImageBlocks

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
    spans = spans_of(features)
    _cache[request] = (len(features), spans)
    return spans


def spans_of(features: Sequence[Any]) -> Spans:
    """The same of a request's `mm_features`."""
    return merge(
        [
            (first, last + 1)
            for feature in features
            if feature.modality == "image"
            for first, last in feature.mm_position.extract_embeds_range()
        ]
    )


def image_blocks(spans: Spans, block_size: int) -> Spans:
    """Index ranges of the blocks that lie wholly inside one span; `block_size` is in tokens.

    >>> image_blocks(((3, 13),), 4)
    ((1, 3),)
    """
    ranges = ((-(-start // block_size), stop // block_size) for start, stop in spans)
    return tuple((first, last) for first, last in ranges if first < last)


def unseen_blocks(spans: Spans, block_size: int, seen: ImageBlocks) -> Iterator[int]:
    """Indices of the image blocks that are not among the seen ones, ascending.

    A block's number is counted from the first image block of its span, so that it does not depend on what follows.

    >>> list(unseen_blocks(((4, 28),), 4, ImageBlocks(2)))
    [2, 4, 6]
    """
    for first, last in image_blocks(spans, block_size):
        yield from (first + number for number in range(last - first) if not seen.has(number))


def count_kept(spans: Spans, first: int, last: int, block_size: int, seen: ImageBlocks) -> int:
    """How many of the blocks `[first, last)` hold a text token, or are among the seen image blocks.

    >>> count_kept(((4, 28),), 0, 8, 4, ImageBlocks(2))
    5
    """
    if last <= first:
        return 0
    kept = last - first
    for start, stop in image_blocks(spans, block_size):
        since, until = max(first, start) - start, min(last, stop) - start
        if since < until:
            kept -= until - since - (seen.count(until) - seen.count(since))
    return kept
