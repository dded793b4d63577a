"""Drops null blocks and their tokens from a batch's attention metadata, in fixed shapes and without synchronising.

Owns the persistent buffers: addresses stay the same from step to step, so CUDA graphs that read them replay correctly.
Plain torch; where vLLM has Triton, one kernel compacts the tables. Does not know layers, heads or backends.
"""

from dataclasses import dataclass

import torch
from vllm.triton_utils import HAS_TRITON

NULL_BLOCK = 0


@dataclass
class CompactedTensors:
    """What a backend's metadata builder is given in place of the batch's own tensors.

    Rows past the last request and columns past a request's `seq_lens` are meaningless, as they are in vLLM.

    Attributes
    ----------
    block_table
        (requests, columns) int32: kept blocks first, in order.
    seq_lens
        (requests,) int32: kept tokens; 0 for a request that keeps none.
    query_start_loc
        (requests + 1,) int32: first kept query of each request, or the batch's own where queries are not moved.
    query_indices
        (tokens,) int64: indices of the kept queries in the batch, then those of the dropped ones. None: not moved.
    dropped_mask
        (tokens,) bool, in the batch's order: the query is in a null block, or is padding.
    """

    block_table: torch.Tensor
    seq_lens: torch.Tensor
    query_start_loc: torch.Tensor
    query_indices: torch.Tensor | None
    dropped_mask: torch.Tensor


class Compactor:
    """Compacts the batches of one KV cache group.

    Parameters
    ----------
    max_requests, max_tokens
        Largest batch, padding of CUDA graphs included.
    block_size
        Tokens of a block; kernel blocks must be manager blocks, or the null block would be several.
    """

    def __init__(self, max_requests: int, max_tokens: int, block_size: int, device: torch.device | str) -> None:
        self.block_size = block_size
        self._max_requests = max_requests
        self._table = torch.zeros(max_requests, 0, dtype=torch.int32, device=device)
        self._seq_lens = torch.zeros(max_requests, dtype=torch.int32, device=device)
        self._query_start_loc = torch.zeros(max_requests + 1, dtype=torch.int32, device=device)
        self._indices = torch.zeros(max_tokens, dtype=torch.int64, device=device)
        self._dropped = torch.zeros(max_tokens, dtype=torch.bool, device=device)

    def __call__(
        self,
        block_table: torch.Tensor,
        seq_lens: torch.Tensor,
        slot_mapping: torch.Tensor,
        query_start_loc: torch.Tensor,
        *,
        requests: int,
        tokens: int,
        decode: bool,
    ) -> CompactedTensors:
        """Compact one batch.

        Parameters
        ----------
        block_table
            (requests, columns) int32, indexed by position; what lies past a request's length is ignored.
        seq_lens, slot_mapping, query_start_loc
            Of the batch, as in vLLM's `CommonAttentionMetadata`; slots below `block_size` are in the null block, and
            -1 is padding.
        decode
            Whether no request has more than one query. Then queries stay where they are, so that the step can be a
            CUDA graph; the caller sets the output of those in `dropped_mask` to zero.
        """
        self._compact_tables(block_table[:requests], seq_lens[:requests])
        dropped = torch.lt(slot_mapping[:tokens], self.block_size, out=self._dropped[:tokens])
        starts, indices = query_start_loc[: requests + 1], None
        if not decode:
            starts, indices = self._move_queries(starts, dropped)
        columns = block_table.shape[1]
        return CompactedTensors(self._table[:requests, :columns], self._seq_lens[:requests], starts, indices, dropped)

    def _compact_tables(self, table: torch.Tensor, seq_lens: torch.Tensor) -> None:
        requests, columns = table.shape
        if columns >= self._table.shape[1]:
            # Once, before anything is captured: vLLM's tables have one width. A column more, where dropped ids go.
            self._table = table.new_zeros(self._max_requests, columns + 1)
            self._starts = torch.arange(columns, dtype=torch.int32, device=table.device) * self.block_size
        if HAS_TRITON:
            from vhserve.engine.attention.compaction_kernel import compact_tables

            compact_tables(table, seq_lens, self._table, self._seq_lens, self.block_size)
            return
        remaining = seq_lens[:, None] - self._starts[:columns]
        keep = (remaining > 0) & (table != NULL_BLOCK)
        torch.sum(remaining.clamp_(0, self.block_size) * keep, dim=1, dtype=torch.int32, out=self._seq_lens[:requests])
        places = torch.where(keep, keep.cumsum(1) - 1, self._table.shape[1] - 1)
        self._table[:requests].zero_().scatter_(1, places, table)

    def _move_queries(self, starts: torch.Tensor, dropped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """First kept query of each request, and the queries' indices: kept ones in order, then dropped ones."""
        tokens = dropped.shape[0]
        kept_so_far = torch.cat([dropped.new_zeros(1, dtype=torch.int64), (~dropped).cumsum(0)])
        dropped_so_far = dropped.cumsum(0)
        places = torch.where(dropped, kept_so_far[-1] + dropped_so_far - 1, kept_so_far[1:] - 1)
        indices = self._indices[:tokens]
        indices.scatter_(0, places, torch.arange(tokens, device=dropped.device))
        # Padding of the batch may have starts past its tokens.
        new_starts = self._query_start_loc[: starts.shape[0]]
        new_starts.copy_(kept_so_far[starts.long().clamp_(max=tokens)])
        return new_starts, indices
