"""One write of keys and values for all attentions of a layer, where their caches allow it.

Owns where that is, and the operator that a compiled model calls: anywhere else, and in any batch that does not fit, it
makes vLLM's own write for each part. Does not know the kernel.
"""

from collections.abc import Sequence
from typing import Final

import torch
from vllm.config import VllmConfig
from vllm.utils.torch_utils import LayerNameType

from vhserve.compat.cache_writes import slots_of, write_as_stock, writes_what_it_is_given
from vhserve.compat.layers import CACHE_WRITE, layer_in_batch, split_graphs_at
from vhserve.engine.attention.lane_attention import LaneAttention
from vhserve.engine.operators import opaque_operator

BACKENDS: Final = ("FLASH_ATTN", "TRITON_ATTN")
"""Whose caches are (blocks, heads, block size, keys and then values), by vLLM's names. Both need a GPU."""


class CacheWrite:
    """The write of one layer's keys and values.

    Parameters
    ----------
    parts
        The attentions of the layer.
    """

    def __init__(self, parts: Sequence[LaneAttention]) -> None:
        self.parts = tuple(parts)

    def __call__(self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
        """Write what belongs to the batch that runs.

        Parameters
        ----------
        keys, values
            Of each part (tokens, heads, head size).
        """
        caches = [part.kv_cache for part in self.parts]
        found = [slots_of(part.layer_name) for part in self.parts]
        slots = [one for one in found if one is not None]
        if len(slots) == len(caches) and fit_one_launch(keys, values, caches, slots):
            from vhserve.engine.attention.cache_write_kernel import write_kv_parts

            write_kv_parts(keys, values, caches, slots)
            return
        for part, key, value in zip(self.parts, keys, values, strict=True):
            write_as_stock(part.layer_name, key, value)


def fit_one_launch(
    keys: Sequence[torch.Tensor],
    values: Sequence[torch.Tensor],
    caches: Sequence[torch.Tensor],
    slots: Sequence[torch.Tensor],
) -> bool:
    """Whether what is to be written is as `cache_write_kernel.write_kv_parts` takes it."""
    size, dtype, tokens = keys[0].shape[-1], keys[0].dtype, len(slots[0])
    return (
        all(one.dtype == dtype and len(one) >= tokens for one in (*keys, *values))
        and all(one.stride(2) == 1 and (one.stride(1) == size or one.shape[1] == 1) for one in (*keys, *values))
        and all(len(one) == tokens and one.dtype == torch.int64 and one.is_contiguous() for one in slots)
        and all(cache.dtype == dtype and cache.ndim == 4 and cache.stride(3) == 1 for cache in caches)
        and all(
            cache.shape[1:] == (key.shape[1], caches[0].shape[2], 2 * size)
            for cache, key in zip(caches, keys, strict=True)
        )
    )


def share_cache_write(parts: Sequence[LaneAttention], vllm_config: VllmConfig) -> bool:
    """Let the parts of a layer have one write, which the operator finds by the first of them.

    Returns
    -------
    Whether the layer is to call the operator, instead of leaving each part to write for itself.
    """
    parts[0].cache_write = CacheWrite(parts)
    if not all(part.attn_backend.get_name() in BACKENDS and writes_what_it_is_given(part) for part in parts):
        return False
    split_graphs_at("vhserve::write_kv_parts", CACHE_WRITE, vllm_config)
    return True


def _write(keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], layer_name: LayerNameType) -> torch.Tensor:
    """Opaque to torch.compile; returns what the attentions take, so that none of them is put in front of it."""
    layer: LaneAttention = layer_in_batch(layer_name)
    layer.cache_write(keys, values)
    return keys[0].new_empty(0)


def _written(keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], layer_name: LayerNameType) -> torch.Tensor:
    return keys[0].new_empty(0)


write_parts = opaque_operator("write_kv_parts", _write, _written)
