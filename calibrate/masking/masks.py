"""The attention mask of a treatment, and what heads put out under it: generic over the definition.

Owns the translation of `profiles.treatments.Treatment` into a mask over queries and keys. Does not know layers, batches
of several treatments, or which treatments there are.
"""

import torch
from torch import Tensor, nn

from calibrate.masking.positions import Positions
from profiles.treatments import ImageBlocks, Treatment


def hidden_keys(treatment: Treatment, positions: Positions) -> tuple[Tensor, Tensor]:
    """Keys that each query does not see, beyond the causal mask, and queries that put out zero.

    Returns
    -------
    hidden
        `(batch, n or 1, n)`, bool; 1 where it is the same for every query.
    zeroed
        `(batch, n)`, bool: positions inside image blocks that they do not see themselves.

    Raises
    ------
    ValueError
        Outside a forward pass.
    """
    if positions.block is None:
        raise ValueError("positions are known only during a forward pass")
    in_prompt = _unseen(treatment.seen_in_prompt, positions.block)
    if positions.reply is None or treatment.seen_in_prompt == treatment.seen_in_reply:
        return in_prompt[:, None], in_prompt
    in_reply = _unseen(treatment.seen_in_reply, positions.block)
    hidden = torch.where(positions.reply[:, :, None], in_reply[:, None], in_prompt[:, None])
    return hidden, torch.where(positions.reply, in_reply, in_prompt)


def masked_output(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    hidden: Tensor,
    zeroed: Tensor,
    scaling: float | None,
) -> Tensor:
    """What heads put out under a mask, before `o_proj`.

    Parameters
    ----------
    query, key, value
        `(batch, heads, n, head size)`, a key and value head for each query head.
    mask
        What their own attention gets, `(batch, 1, n, n)`, boolean or additive; None is causal.
    hidden, zeroed
        As `hidden_keys` returns them.
    scaling
        Factor of the logits.

    Returns
    -------
    `(batch, n, heads, head size)`
    """
    output = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=_visible(mask, hidden), scale=scaling
    )
    return output.transpose(1, 2).masked_fill(zeroed[..., None, None], 0.0)


def text_only_output(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropped: Tensor, scaling: float | None
) -> Tensor:
    """`masked_output` of heads that see no position of `dropped`, `(batch, n)`, bool."""
    return masked_output(query, key, value, mask, dropped[:, None], dropped, scaling)


def _unseen(seen: ImageBlocks, block: Tensor) -> Tensor:
    """Positions in image blocks other than the seen ones, `(batch, n)`."""
    inside = block >= 0
    return inside if seen.stride is None else inside & (block % seen.stride != 0)


def _visible(mask: Tensor | None, hidden: Tensor) -> Tensor:
    """Keys that each query sees, `(batch, 1, n, n)`.

    Every query sees itself: a row that sees nothing would be NaN, and rows that see nothing are zeroed anyway.
    """
    n = hidden.shape[2]
    if mask is None:
        mask = torch.ones(n, n, dtype=torch.bool, device=hidden.device).tril()[None, None]
    elif mask.dtype != torch.bool:
        mask = mask == 0  # additive, as eager attention has it
    return (mask & ~hidden[:, None]) | torch.eye(n, dtype=torch.bool, device=hidden.device)
