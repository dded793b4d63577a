"""What a batch's positions are to treated heads: padding, image blocks, prompt or reply.

Owns these facts for the duration of one forward pass. Does not know models or attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from calibrate.masking.image_blocks import image_block_numbers


@dataclass
class Positions:
    """Facts about the positions of a forward pass; cleared when it ends.

    Attributes
    ----------
    block_size
        Positions in a block; `None` for single tokens.
    prompt_lengths
        Tokens of each sample's prompt, `(batch,)`; positions behind it are the reply's. `None`: all are the prompt's.
    valid
        No padding; `(batch, n)`, bool. `None` outside a forward pass, as the following ones.
    block
        Number of a position's image block within its image span, -1 outside image blocks; `(batch, n)`, int64.
    reply
        Position of the reply; `(batch, n)`, bool. `None` where there is no reply.
    """

    block_size: int | None
    prompt_lengths: Sequence[int] | None = None
    valid: Tensor | None = field(default=None, init=False)
    block: Tensor | None = field(default=None, init=False)
    reply: Tensor | None = field(default=None, init=False)

    def note(self, spans: Tensor, valid: Tensor | None = None) -> None:
        """Set the facts of a batch, both `(batch, n)`, bool: positions in image spans, and no padding.

        A forward pass of the whole model does so itself, by its `attention_mask`; a caller of single decoder layers
        has to.
        """
        self.valid = torch.ones_like(spans) if valid is None else valid.bool()
        self.block = image_block_numbers(spans, self.valid, self.block_size)
        if self.prompt_lengths is not None:
            lengths = torch.tensor(self.prompt_lengths, device=spans.device)
            self.reply = self.valid & (self.valid.cumsum(1) > lengths[:, None])

    @property
    def has_replies(self) -> bool:
        """Whether any position is a reply's."""
        return self.reply is not None and bool(self.reply.any())

    def clear(self) -> None:
        """Forget the batch."""
        self.valid = self.block = self.reply = None
