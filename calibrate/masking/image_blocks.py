"""Image blocks: which positions of a sequence lie in a block that is all of one image span, and in which.

Owns the rule (a function of the spans and the block size, nothing else). Does not know models or treatments.
"""

import torch
from torch import Tensor


def image_blocks(spans: Tensor, valid: Tensor, block_size: int | None = None) -> Tensor:
    """Find the positions in image blocks.

    Parameters
    ----------
    spans
        `(batch, n)`, bool: positions in image spans (`calibrate.models.image_spans`).
    valid
        `(batch, n)`, bool: no padding. Padding stands left or right, never between.
    block_size
        Positions in a block. Blocks are counted from the first valid position. `None` is 1: each of
        these positions is a block.

    Returns
    -------
    `(batch, n)`, bool. A block that is not full, as the last one of a sequence may be, is no image block.
    """
    image = spans & valid
    if block_size is None or block_size == 1:
        return image
    batch, n = image.shape
    first = valid.int().argmax(dim=1, keepdim=True)
    block = (torch.arange(n, device=image.device) - first).clamp(min=0) // block_size
    held = torch.zeros(batch, n // block_size + 1, dtype=torch.long, device=image.device)
    held.scatter_add_(1, block, image.long())
    return image & (held.gather(1, block) == block_size)


def image_block_numbers(spans: Tensor, valid: Tensor, block_size: int | None = None) -> Tensor:
    """Number of each position's image block within its span, from 0; -1 outside image blocks.

    Parameters as for `image_blocks`.

    Returns
    -------
    `(batch, n)`, int64.
    """
    inside = image_blocks(spans, valid, block_size)
    position = torch.arange(spans.shape[1], device=spans.device)
    starts = inside.clone()
    starts[:, 1:] &= ~inside[:, :-1]
    # Blocks of two spans never touch: a token between them makes its block one that is no image block.
    start = torch.where(starts, position, 0).cummax(1).values
    return torch.where(inside, (position - start) // (block_size or 1), -1)
