"""Where the images and videos of a prompt are: one rule for the engine, calibration and the oracle.

Owns the rule and its constant, over the ranges of tokens that hold embeddings, and how these ranges follow from token
ids alone. Does not know requests, blocks or tensors.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

from pydantic import NonNegativeInt

from profiles.strict import Strict

Span = tuple[int, int]
"""Half-open range of tokens `[start, stop)`."""

Spans = tuple[Span, ...]
"""Ascending, disjoint, not touching and not empty."""

Modality = Literal["image", "video"]
"""What heads drop: anything else in a prompt, such as audio, counts as text."""
MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)


class SpanRule(Strict):
    """What of a prompt an image takes up: from its first embedding to its last, but for long holes.

    Models put tokens of text between the embeddings of an image: at the ends of its rows, or around its tiles. Such a
    hole counts as the image's where it is short, or hardly a KV block would be all image. Holes are never bridged
    between two images, nor in a video, where they are timestamps and marks of frames: each run of embeddings is a span.

    Attributes
    ----------
    bridge
        Tokens of the longest hole that counts as the image's.
    """

    bridge: NonNegativeInt

    def spans(self, media: Iterable[tuple[str, Iterable[Span]]]) -> Spans:
        """Spans of a prompt, of the modality of everything in it and the ranges that hold its embeddings.

        What touches is one span, also where it is of two images.

        >>> SpanRule(bridge=2).spans([("image", [(4, 8), (9, 13)]), ("image", [(14, 18)])])
        ((4, 13), (14, 18))
        """
        return merge(
            span
            for modality, ranges in media
            if modality in MODALITIES
            for span in merge(ranges, self.bridge if modality == "image" else 0)
        )

    def spans_of_tokens(self, embedding: Sequence[bool], media: Iterable[tuple[str, int]]) -> Spans:
        """The same of a prompt whose token ids are all that is known.

        Parameters
        ----------
        embedding
            For each token whether its id is one that embeddings are put in the place of.
        media
            Modality of everything in the prompt, in its order, and how many embeddings it has.

        Raises
        ------
        ValueError
            The prompt has room for more embeddings, or fewer.

        >>> SpanRule(bridge=2).spans_of_tokens([False, True, False, True, False, True], [("image", 2), ("image", 1)])
        ((1, 4), (5, 6))
        """
        places = [position for position, is_embedding in enumerate(embedding) if is_embedding]
        found, taken = [], 0
        for modality, count in media:
            found.append((modality, [(place, place + 1) for place in places[taken : taken + count]]))
            taken += count
        if taken != len(places):
            raise ValueError(f"the prompt has {len(places)} tokens of images, which have {taken} embeddings")
        return self.spans(found)


RULE: Final = SpanRule(bridge=8)
"""What plans are made and heads are measured by."""

OLD_RULE: Final = SpanRule(bridge=0)
"""What plans were made by that do not say: every hole is text."""


def merge(spans: Iterable[Span], bridge: int = 0) -> Spans:
    """Sort half-open ranges and join those that touch or overlap, or are at most `bridge` apart.

    >>> merge([(8, 9), (0, 4), (4, 6)])
    ((0, 6), (8, 9))
    """
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if stop <= start:
            continue
        if merged and start <= merged[-1][1] + bridge:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)
