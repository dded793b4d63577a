"""Attention with some heads of a layer whose projections are those of all heads.

Owns how heads are taken out of q, k and v, and put back into the output, around the attention of a layer's kept heads.
The modules around it stay vLLM's, whatever they do to q and k before and to the output after: norms, rotary positions,
quantised weights, adapters. Does not know which attention the kept heads have.
"""

from collections.abc import Sequence

import torch
from torch import nn

from profiles.planning.layout import LayerLayout
from vhserve.engine.layer_plan import RemovedMeans


class GatheredAttention(nn.Module):
    """Attends with a layer's kept heads, and writes mean outputs, or zero, in the places of those that are removed.

    Parameters
    ----------
    heads, head_size
        Query heads of the layer, removed ones included, and the size of each.
    layout
        Kept heads, in the order in which `kept` takes them.
    kept
        Attention over these; None for a layer that keeps no head.
    means
        Mean outputs of the removed heads; None for zero.
    """

    def __init__(
        self, heads: int, head_size: int, layout: LayerLayout, kept: nn.Module | None, means: RemovedMeans | None
    ) -> None:
        super().__init__()
        self.heads, self.head_size, self.kept = heads, head_size, kept
        self.queries, self.kv = HeadSelection(layout.queries), HeadSelection(layout.kv)
        removed = sorted(set(range(heads)) - set(layout.queries))
        order = [*layout.queries, *removed]
        self.places = HeadSelection([order.index(head) for head in range(heads)])
        outputs = torch.zeros(len(removed), head_size)  # dtype and device are those of the model that is built
        if means is not None:
            outputs.copy_(torch.tensor(means.means, device="cpu"))
        self.register_buffer("removed", outputs, persistent=False)

    removed: torch.Tensor
    """(removed heads, head size), ascending."""

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend.

        Parameters
        ----------
        query
            (tokens, query heads * head size).
        key, value
            (tokens, KV heads * head size).

        Returns
        -------
        Outputs of all heads, in the shape and order of `query`.
        """
        tokens = query.shape[0]
        parts = []
        if self.kept is not None:
            by_head = [one.view(tokens, -1, self.head_size) for one in (query, key, value)]
            chosen = [select(one) for select, one in zip((self.queries, self.kv, self.kv), by_head, strict=True)]
            parts.append(self.kept(*(one.flatten(1) for one in chosen)).view(tokens, -1, self.head_size))
        if len(self.removed):
            parts.append(self.removed.to(query.dtype).expand(tokens, -1, -1))
        outputs = self.places(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
        return outputs.reshape(tokens, self.heads * self.head_size)


class HeadSelection(nn.Module):
    """Heads of a tensor of shape (tokens, heads, head size), in a given order; a view where they are a run."""

    def __init__(self, heads: Sequence[int]) -> None:
        super().__init__()
        self.run = _run(heads)
        indices = torch.tensor(list(heads), dtype=torch.long) if self.run is None else None
        self.register_buffer("indices", indices, persistent=False)

    indices: torch.Tensor | None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, heads, head size) to (tokens, chosen heads, head size)."""
        if self.indices is not None:
            return x.index_select(1, self.indices)
        start, stop = self.run or (0, 0)
        return x if (start, stop) == (0, x.shape[1]) else x[:, start:stop]


def _run(heads: Sequence[int]) -> tuple[int, int] | None:
    """Start and stop of heads that follow one another; None for others."""
    if not heads:
        return 0, 0
    start, stop = heads[0], heads[0] + len(heads)
    return (start, stop) if list(heads) == list(range(start, stop)) else None
