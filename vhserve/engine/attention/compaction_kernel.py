"""Compaction of block tables as one Triton launch: a decode step pays for it in every KV cache group.

Owns the kernel; same result as the torch version in `device_compaction`, but columns past a request's kept blocks keep
what they held before. Does not know queries.
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
    columns,
    BLOCK_SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
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
    tl.store(out_seq_lens + row, kept_tokens)


def compact_tables(
    table: torch.Tensor,
    seq_lens: torch.Tensor,
    out_table: torch.Tensor,
    out_seq_lens: torch.Tensor,
    block_size: int,
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
    """
    requests, columns = table.shape
    if requests == 0:
        return
    _compact_tables[(requests,)](
        table,
        table.stride(0),
        seq_lens,
        out_table,
        out_table.stride(0),
        out_seq_lens,
        columns,
        BLOCK_SIZE=block_size,
        CHUNK=min(1024, triton.next_power_of_2(columns)),
    )
