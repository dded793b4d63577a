"""Compaction of block tables as one Triton launch: a decode step pays for it in every KV cache group.

Owns the kernel; same result as the torch version in `device_compaction`, but columns past a request's kept blocks keep
what they held before.
"""

import torch
import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _compact_tables(  # type: ignore[no-untyped-def]
    table,  # [requests, columns] int32
    table_stride,
    seq_lens,  # [requests] int32
    out_table,  # [max_requests, more columns] int32
    out_stride,
    out_seq_lens,  # [max_requests] int32
    slot_mapping,  # [tokens] int64
    query_start_loc,  # [more than requests] int32
    tokens,
    columns,
    BLOCK_SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
    SINGLE_QUERIES: tl.constexpr,
):
    row = tl.program_id(0)
    length = tl.load(seq_lens + row)
    live_columns = tl.minimum(tl.cdiv(length, BLOCK_SIZE), columns)
    kept_blocks = 0
    kept_tokens = 0
    for start in range(0, live_columns, CHUNK):
        column = start + tl.arange(0, CHUNK)
        live = column < live_columns
        block = tl.load(table + row * table_stride + column, mask=live, other=0)
        keep = live & (block != 0)
        counted = keep.to(tl.int32)
        place = kept_blocks + tl.cumsum(counted, 0) - 1
        tl.store(out_table + row * out_stride + place, block, mask=keep)
        kept_tokens += tl.sum(tl.where(keep, tl.minimum(length - column * BLOCK_SIZE, BLOCK_SIZE), 0), 0)
        kept_blocks += tl.sum(counted, 0)
    if SINGLE_QUERIES:
        query = tl.load(query_start_loc + row)
        slot = tl.load(slot_mapping + query, mask=query < tokens, other=-1)
        kept_tokens = tl.where(slot < BLOCK_SIZE, 0, kept_tokens)
    tl.store(out_seq_lens + row, kept_tokens)


def compact_tables(
    table: torch.Tensor,
    seq_lens: torch.Tensor,
    out_table: torch.Tensor,
    out_seq_lens: torch.Tensor,
    block_size: int,
    queries: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Write kept blocks to the front of each row of `out_table`, and the number of kept tokens to `out_seq_lens`.

    Parameters
    ----------
    table
        (requests, columns) int32, indexed by position.
    seq_lens
        (requests,) int32, in tokens.
    out_table
        (at least requests, more than columns) int32.
    out_seq_lens
        (at least requests,) int32.
    block_size
        Tokens of a block.
    queries
        Slots, (tokens,) int64, and starts, (more than requests,) int32, of a batch in which no request has more than
        one query: if that is in a null block, the request gets no token. None: some request has several.
    """
    requests, columns = table.shape
    if requests == 0:
        return
    # Without queries nothing is read there, but a kernel takes pointers.
    slots, starts = queries or (seq_lens[:0], seq_lens)
    _compact_tables[(requests,)](
        table,
        table.stride(0),
        seq_lens,
        out_table,
        out_table.stride(0),
        out_seq_lens,
        slots,
        starts,
        slots.shape[0],
        columns,
        BLOCK_SIZE=block_size,
        CHUNK=min(1024, triton.next_power_of_2(columns)),
        SINGLE_QUERIES=queries is not None,
    )
