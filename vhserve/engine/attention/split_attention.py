"""Several attentions in one decoder layer: one for the heads of each treatment.

Owns the module that takes the place of vLLM's `Attention` in such a layer. Does not know KV caches or kernels.
"""

from collections.abc import Sequence

import torch
from torch import nn

from vhserve.compat.cache_writes import attention_after_write
from vhserve.compat.layers import name_for_operator
from vhserve.engine.attention.cache_write import write_parts
from vhserve.engine.attention.lane_attention import LaneAttention


class SplitAttention(nn.Module):
    """Attends with the heads of each part; q, k and v are laid out part by part.

    Parameters
    ----------
    parts
        The attentions.
    shares_write
        Whether keys and values of all parts are written together (`cache_write`), and not by each part.
    """

    def __init__(self, parts: Sequence[LaneAttention], *, shares_write: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.heads = [(part.num_heads, part.num_kv_heads, part.head_size) for part in parts]
        self.query_sizes = [heads * size for heads, _, size in self.heads]
        self.kv_sizes = [heads * size for _, heads, size in self.heads]
        self.shares_write, self.first = shares_write, parts[0].layer_name
        self.attend = [attention_after_write(part) for part in parts]

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
        if self.shares_write:
            return self._write_and_attend(queries, keys, values)
        return torch.cat([part(*own) for part, *own in zip(self.parts, queries, keys, values, strict=True)], dim=-1)

    def _write_and_attend(
        self, queries: Sequence[torch.Tensor], keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """With nothing between the operators, so that they are one piece of a compiled graph."""
        own_queries = [one.view(-1, heads, size) for one, (heads, _, size) in zip(queries, self.heads, strict=True)]
        own_keys, own_values = (
            [one.view(-1, heads, size) for one, (_, heads, size) in zip(parts, self.heads, strict=True)]
            for parts in (keys, values)
        )
        outputs = [torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in queries]
        by_head = [one.view(-1, heads, size) for one, (heads, _, size) in zip(outputs, self.heads, strict=True)]
        written = write_parts(own_keys, own_values, name_for_operator(self.first))
        of_parts = zip(self.attend, own_queries, own_keys, own_values, by_head, strict=True)
        for attend, one_query, one_key, one_value, output in of_parts:
            attend(one_query, one_key, one_value, output, written)
        return torch.cat(outputs, dim=-1)
