"""Image spans of prompts that are known by their token ids: which positions the one rule counts as an image's.

Owns the way between masks and spans. The rule is `profiles.image_spans`; does not know models or blocks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from profiles.image_spans import RULE, SpanRule


def span_mask(image: Tensor, images: Sequence[Sequence[int]] | None = None, rule: SpanRule = RULE) -> Tensor:
    """Positions in image spans.

    Parameters
    ----------
    image
        Image tokens, `(batch, n)`, bool; padding has none.
    images
        Image tokens of each image of each sample, in the order of the prompt. `None`: a sample has one image at most.

    Returns
    -------
    `(batch, n)`, bool.

    Raises
    ------
    ValueError
        The images of a sample have more image tokens than it, or fewer.
    """
    rows = image.tolist()
    counts = [[sum(row)] for row in rows] if images is None else images
    mask = torch.zeros_like(image)
    for number, (row, own) in enumerate(zip(rows, counts, strict=True)):
        for start, stop in rule.spans_of_tokens(row, [("image", count) for count in own]):
            mask[number, start:stop] = True
    return mask
