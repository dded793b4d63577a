"""Two attentions in one decoder layer: one for its full heads and one for its text-only heads.

Owns the module that takes the place of vLLM's `Attention` in such a layer. Does not know KV caches or kernels.
"""

import torch
from torch import nn

from vhserve.engine.attention.lane_attention import FullLaneAttention, TextOnlyAttention


class SplitAttention(nn.Module):
    """Attends with full heads and with text-only heads; q, k and v are laid out ``[full | text_only]``."""

    def __init__(self, full: FullLaneAttention, text: TextOnlyAttention) -> None:
        super().__init__()
        self.full, self.text = full, text
        self.query_sizes = [full.num_heads * full.head_size, text.num_heads * text.head_size]
        self.kv_sizes = [full.num_kv_heads * full.head_size, text.num_kv_heads * text.head_size]

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
        full_query, text_query = query.split_with_sizes(self.query_sizes, dim=-1)
        full_key, text_key = key.split_with_sizes(self.kv_sizes, dim=-1)
        full_value, text_value = value.split_with_sizes(self.kv_sizes, dim=-1)
        full = self.full(full_query, full_key, full_value)
        return torch.cat([full, self.text(text_query, text_key, text_value)], dim=-1)
