"""Treatments for ablations only, which no server has: the head's output does not come from its own attention weights.

Owns the registry of them. Does not know layers or plans.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from calibrate.masking.positions import Positions


def uniform_output(value: Tensor, positions: Positions) -> Tensor:
    """The head attends uniformly to every position of its sequence, later ones too.

    That is what setting its logits to zero after the causal mask does: the paper's own masking.

    Parameters
    ----------
    value
        `(batch, KV heads, n, head size)`.

    Returns
    -------
    `(batch, KV heads, head size)`, the same for every query.

    Raises
    ------
    ValueError
        Outside a forward pass.
    """
    if positions.valid is None:
        raise ValueError("positions are known only during a forward pass")
    weights = positions.valid / positions.valid.sum(1, keepdim=True)
    return torch.einsum("bn,bhnd->bhd", weights.to(value), value)


ABLATIONS: Final[Mapping[str, Callable[[Tensor, Positions], Tensor]]] = {"uniform": uniform_output}
"""By name: output of every KV head's query heads from the values, as `uniform_output`."""
