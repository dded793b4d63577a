"""Keys and values of all parts of a layer into their KV caches, as one Triton launch.

Owns the kernel, which does what vLLM's `reshape_and_cache_flash` does for each part by itself, in a cache of the keys'
own type. Does not know what the parts are, nor when it may be used (`cache_write`).
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _write_kv_parts(  # type: ignore[no-untyped-def]
    # Tuples, of one for each part.
    keys,  # [tokens, heads, HEAD_SIZE]
    values,
    key_strides,  # from token to token
    value_strides,
    slots,  # [tokens] int64
    caches,  # [blocks, heads, BLOCK_SIZE, 2 * HEAD_SIZE]
    heads,  # not a constant: layers differ in them, and one kernel serves many
    block_strides,
    head_strides,
    place_strides,
    HEAD_TILES: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, SIZE_TILE)[None, :]
    for part in tl.static_range(PARTS):
        if tl.program_id(1) == part:
            slot = tl.load(slots[part] + token)
            if slot >= 0:
                head = tl.arange(0, HEAD_TILES[part])[:, None]
                inside = (head < heads[part]) & (column < HEAD_SIZE)
                source = head * HEAD_SIZE + column
                key = tl.load(keys[part] + token * key_strides[part] + source, mask=inside)
                value = tl.load(values[part] + token * value_strides[part] + source, mask=inside)
                block, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
                start = caches[part] + block * block_strides[part] + place * place_strides[part]
                target = start + head.to(tl.int64) * head_strides[part] + column
                tl.store(target, key, mask=inside)
                tl.store(target + HEAD_SIZE, value, mask=inside)


def write_kv_parts(
    keys: Sequence[torch.Tensor],
    values: Sequence[torch.Tensor],
    caches: Sequence[torch.Tensor],
    slots: Sequence[torch.Tensor],
) -> None:
    """Write each part's keys and values into its cache.

    Parameters
    ----------
    keys, values
        Of each part (at least tokens, heads, head size), with the heads of a token in one piece.
    caches
        Of each part (blocks, heads, block size, 2 * head size), keys before values, with the last axis in one piece
        and any other strides. Block size, head size and dtype are those of all parts.
    slots
        Of each part (tokens,) int64: block times block size plus place in the block; below 0 what is not written.
    """
    tokens, (_, _, block_size, _) = slots[0].shape[0], caches[0].shape
    if tokens == 0:
        return
    heads, head_size = tuple(key.shape[1] for key in keys), keys[0].shape[2]
    _write_kv_parts[(tokens, len(heads))](
        tuple(keys),
        tuple(values),
        tuple(key.stride(0) for key in keys),
        tuple(value.stride(0) for value in values),
        tuple(slots),
        tuple(caches),
        heads,
        tuple(cache.stride(0) for cache in caches),
        tuple(cache.stride(1) for cache in caches),
        tuple(cache.stride(2) for cache in caches),
        HEAD_TILES=tuple(triton.next_power_of_2(count) for count in heads),
        PARTS=len(heads),
        BLOCK_SIZE=block_size,
        HEAD_SIZE=head_size,
        SIZE_TILE=triton.next_power_of_2(head_size),
    )
