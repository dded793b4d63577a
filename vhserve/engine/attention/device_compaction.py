"""Drops null blocks and their tokens from a batch's attention metadata, in fixed shapes and without synchronising.

Owns the persistent buffers: addresses stay the same from step to step, so CUDA graphs that read them replay correctly.
Plain torch; where vLLM has Triton, one kernel compacts the tables. Does not know layers, heads or backends.
"""

from dataclasses import dataclass
from typing import NamedTuple

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
    """

    block_table: torch.Tensor
    seq_lens: torch.Tensor


@dataclass
class MovedQueries:
    """Queries of a batch, those that are kept in front.

    Attributes
    ----------
    query_start_loc
        (requests + 1,) int32: first kept query of each request.
    indices
        (tokens,) int64: indices of the kept queries in the batch, then those of the dropped ones.
    dropped_mask
        (tokens,) bool, in the batch's order: the query is in a null block, or is padding.
    """

    query_start_loc: torch.Tensor
    indices: torch.Tensor
    dropped_mask: torch.Tensor


class SingleQueries(NamedTuple):
    """Slots of a batch in which no request has more than one query.

    Attributes
    ----------
    slot_mapping
        (tokens,) int64: slots below a block's size are in the null block, and -1 is padding.
    query_start_loc
        (more than requests,) int32; padding may have starts past the tokens.
    """

    slot_mapping: torch.Tensor
    query_start_loc: torch.Tensor

    def slots(self, requests: int) -> torch.Tensor:
        """(requests,) int64: the slot of each request's query."""
        last = self.slot_mapping.shape[0] - 1
        return self.slot_mapping[self.query_start_loc[:requests].long().clamp_(max=last)]


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
        self, block_table: torch.Tensor, seq_lens: torch.Tensor, queries: SingleQueries | None = None
    ) -> CompactedTensors:
        """Compact the tables of a batch.

        Parameters
        ----------
        block_table
            (requests, columns) int32, indexed by position; what lies past a request's length is ignored.
        seq_lens
            (requests,) int32, in tokens.
        queries
            Where no request has more than one query. That stays where it is, so that the step can be a CUDA graph; one
            in a null block is given no token to see, for which kernels return zero.
        """
        requests, columns = block_table.shape
        if columns >= self._table.shape[1]:
            # Once, before anything is captured: vLLM's tables have one width. A column more, where dropped ids go.
            self._table = block_table.new_zeros(self._max_requests, columns + 1)
            self._starts = torch.arange(columns, dtype=torch.int32, device=block_table.device) * self.block_size
        table, lengths = self._table[:requests], self._seq_lens[:requests]
        if HAS_TRITON:
            from vhserve.engine.attention.compaction_kernel import compact_tables

            compact_tables(block_table, seq_lens, table, lengths, self.block_size, queries)
        else:
            self._compact(block_table, seq_lens, table, lengths)
            if queries is not None:
                lengths.masked_fill_(queries.slots(requests) < self.block_size, 0)
        return CompactedTensors(table[:, :columns], lengths)

    def _compact(
        self, block_table: torch.Tensor, seq_lens: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor
    ) -> None:
        remaining = seq_lens[:, None] - self._starts[: block_table.shape[1]]
        keep = (remaining > 0) & (block_table != NULL_BLOCK)
        torch.sum(remaining.clamp_(0, self.block_size) * keep, dim=1, dtype=torch.int32, out=lengths)
        places = torch.where(keep, keep.cumsum(1) - 1, table.shape[1] - 1)
        table.zero_().scatter_(1, places, block_table)

    def move_queries(self, slot_mapping: torch.Tensor, query_start_loc: torch.Tensor) -> MovedQueries:
        """First kept query of each request, and where queries are: kept ones in order, then dropped ones.

        Parameters
        ----------
        slot_mapping
            (tokens,) int64: slots below `block_size` are in the null block, and -1 is padding.
        query_start_loc
            (requests + 1,) int32, of the batch.
        """
        tokens = slot_mapping.shape[0]
        dropped = torch.lt(slot_mapping, self.block_size, out=self._dropped[:tokens])
        kept_so_far = torch.cat([dropped.new_zeros(1, dtype=torch.int64), (~dropped).cumsum(0)])
        dropped_so_far = dropped.cumsum(0)
        places = torch.where(dropped, kept_so_far[-1] + dropped_so_far - 1, kept_so_far[1:] - 1)
        indices = self._indices[:tokens]
        indices.scatter_(0, places, torch.arange(tokens, device=dropped.device))
        # Padding of the batch may have starts past its tokens.
        new_starts = self._query_start_loc[: query_start_loc.shape[0]]
        new_starts.copy_(kept_so_far[query_start_loc.long().clamp_(max=tokens)])
        return MovedQueries(new_starts, indices, dropped)
