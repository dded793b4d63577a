"""Where the image tokens of a request are, in tokens and in KV blocks.

Owns the rule that makes a block an image block (every position of it lies in one image span), and a block's number
within its span. Reads vLLM's live request; what a span is says `profiles.image_spans`. Does not know who allocates the
blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from profiles.image_spans import Span, SpanRule, Spans
from profiles.treatments import ImageBlocks

if TYPE_CHECKING:
    from vllm.v1.request import Request

_cache: WeakKeyDictionary[Request, tuple[int, int, Spans]] = WeakKeyDictionary()
"""Number of a request's features, the rule's `bridge`, and the spans that follow; an entry ends with its request."""


def image_spans(request: Request, rule: SpanRule) -> Spans:
    """Image spans of the request's prompt, in tokens."""
    features = request.mm_features or ()
    # A streaming session appends features to a live request; it never changes one that is there.
    cached = _cache.get(request)
    if cached is not None and cached[:2] == (len(features), rule.bridge):
        return cached[2]
    spans = spans_of(features, rule)
    _cache[request] = (len(features), rule.bridge, spans)
    return spans


def spans_of(features: Sequence[Any], rule: SpanRule) -> Spans:
    """The same of a request's `mm_features`.

    vLLM gives the embedded ranges of a placeholder with inclusive ends (`PlaceholderRange.extract_embeds_range`).
    """
    return rule.spans(
        (one.modality, [(first, last + 1) for first, last in one.mm_position.extract_embeds_range()])
        for one in features
    )


def image_blocks(spans: Iterable[Span], block_size: int) -> Spans:
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
