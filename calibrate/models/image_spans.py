"""Image spans of prompts that are known by their token ids: which positions the one rule counts as an image's.

Owns the way between masks and spans. The rule is `profiles.image_spans`; does not know models or blocks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from profiles.image_spans import RULE, SpanRule

Media = Sequence[tuple[str, int]]
"""Modality and embeddings of each image and video of a prompt, in its order."""


def span_mask(embedding: Tensor, media: Sequence[Media] | None = None, rule: SpanRule = RULE) -> Tensor:
    """Positions in image spans.

    Parameters
    ----------
    embedding
        Tokens that embeddings are put in the place of, `(batch, n)`, bool; padding has none.
    media
        Of each sample. `None`: a sample has one image at most.

    Returns
    -------
    `(batch, n)`, bool.

    Raises
    ------
    ValueError
        The images and videos of a sample have more embeddings than it has room for, or fewer.
    """
    rows = embedding.tolist()
    known = [[("image", sum(row))] for row in rows] if media is None else media
    mask = torch.zeros_like(embedding)
    for number, (row, own) in enumerate(zip(rows, known, strict=True)):
        for start, stop in rule.spans_of_tokens(row, own):
            mask[number, start:stop] = True
    return mask
