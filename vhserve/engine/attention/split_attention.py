"""Several attentions in one decoder layer: one for the heads of each treatment.

Owns the module that takes the place of vLLM's `Attention` in such a layer. Does not know KV caches or kernels.
"""

from collections.abc import Sequence

import torch
from torch import nn

from vhserve.engine.attention.lane_attention import LaneAttention


class SplitAttention(nn.Module):
    """Attends with the heads of each part; q, k and v are laid out part by part."""

    def __init__(self, parts: Sequence[LaneAttention]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.query_sizes = [part.num_heads * part.head_size for part in parts]
        self.kv_sizes = [part.num_kv_heads * part.head_size for part in parts]

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
        Outputs of the heads, in the shape and order of `query`.
        """
        queries = query.split_with_sizes(self.query_sizes, dim=-1)
        keys, values = key.split_with_sizes(self.kv_sizes, dim=-1), value.split_with_sizes(self.kv_sizes, dim=-1)
        return torch.cat([part(*own) for part, *own in zip(self.parts, queries, keys, values, strict=True)], dim=-1)
