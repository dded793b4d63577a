"""The attention implementation of text-only heads: the platform's kernel over kept queries, zero for the others.

Owns how queries are moved around the stock kernel. Does not know which queries are kept (`query_routing`).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from vhserve.engine.attention.query_routing import RoutedMetadata


class PartialImpl:
    """Mixin before a stock attention implementation."""

    def fused_output_quant_supported(self, quant_key: Any) -> bool:
        return False  # rows are zeroed after the kernel

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: RoutedMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Fill `output`, (tokens, heads, head size), from `query`, of the same shape."""
        stock: Callable[..., torch.Tensor] = functools.partial(
            super().forward,  # type: ignore[misc]  # the stock implementation's
            layer,
        )
        scales = (output_scale, output_block_scale)
        routing = None if attn_metadata is None else attn_metadata.routing
        if routing is None:
            return stock(query, key, value, kv_cache, attn_metadata, output, *scales)
        rows, indices = output[: routing.tokens], routing.kept_indices
        if routing.host is not None:
            rows.zero_()
        if len(indices):
            kept = output.new_empty((len(indices), *output.shape[1:]))
            stock(_select(query, indices), key, value, kv_cache, attn_metadata, kept, *scales)
            rows.index_copy_(0, indices, kept)
        if routing.dropped_mask is not None:
            # Filled, not multiplied: a row without keys may be NaN.
            rows.masked_fill_(routing.dropped_mask[:, None, None], 0)
        return output


def _select(query: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    if query.element_size() > 1:
        return query.index_select(0, indices)
    # Not every device indexes FP8.
    return query.view(torch.uint8).index_select(0, indices).view(query.dtype)
