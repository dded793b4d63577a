"""Image blocks: which positions of a sequence lie in a block that holds nothing but image tokens.

Owns the rule (a function of the sequence and the block size, nothing else). Knows no model and no treatment.
"""

import torch
from torch import Tensor


def image_blocks(image: Tensor, valid: Tensor, block_size: int | None = None) -> Tensor:
    """Find the positions in image blocks.

    Parameters
    ----------
    image
        `(batch, n)`, bool: image tokens.
    valid
        `(batch, n)`, bool: no padding. Padding stands left or right, never between.
    block_size
        Positions in a block. Blocks are counted from the first valid position. `None` is 1: each image token is a
        block.

    Returns
    -------
    `(batch, n)`, bool. A block that is not full, as the last one of a sequence may be, is no image block.
    """
    image = image & valid
    if block_size is None or block_size == 1:
        return image
    batch, n = image.shape
    first = valid.int().argmax(dim=1, keepdim=True)
    block = (torch.arange(n, device=image.device) - first).clamp(min=0) // block_size
    held = torch.zeros(batch, n // block_size + 1, dtype=torch.long, device=image.device)
    held.scatter_add_(1, block, image.long())
    return image & (held.gather(1, block) == block_size)
