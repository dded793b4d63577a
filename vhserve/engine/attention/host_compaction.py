"""Drops null blocks and their tokens from a batch whose metadata is in host memory: what is dropped is left out.

Owns the compaction plan, which is the same for all text-only groups of a step, since their null blocks have the same
positions; each group only selects its own blocks with it. In numpy: for a handful of requests its calls cost a quarter
of torch's. Does not know layers, heads or backends; `device_compaction` does the same on a device, in fixed shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vhserve.engine.attention.query_routing import HostRows

NULL_BLOCK = 0


@dataclass(frozen=True)
class KeptQueries:
    """Queries of a batch that are not in null blocks, when some are.

    Attributes
    ----------
    requests
        (kept requests,) int64: requests with a kept query.
    query_start_loc
        (kept requests + 1,) int32: first kept query of each of these, as in vLLM's `CommonAttentionMetadata`.
    max_query_len
        Most kept queries of a request.
    rows
        Their indices in the batch, and each request's last query.
    """

    requests: torch.Tensor
    query_start_loc: torch.Tensor
    max_query_len: int
    rows: HostRows


@dataclass(frozen=True)
class CompactionPlan:
    """What to keep of a batch.

    Attributes
    ----------
    columns
        (requests, most kept blocks) int64: columns of each request's kept blocks, in order; then others.
    seq_lens
        (requests,) int32: kept tokens.
    max_seq_len
        Most kept tokens of a request.
    queries
        None: all queries are kept.
    """

    columns: np.ndarray
    seq_lens: torch.Tensor
    max_seq_len: int
    queries: KeptQueries | None

    def block_table(self, table: torch.Tensor) -> torch.Tensor:
        """The kept blocks of one group.

        Parameters
        ----------
        table
            (requests, columns) int32, indexed by position.

        Returns
        -------
        (requests, most kept blocks) int32; columns past a request's own blocks are meaningless.
        """
        return torch.from_numpy(np.take_along_axis(table.numpy(), self.columns, axis=1))


def plan_compaction(
    table: torch.Tensor, seq_lens: torch.Tensor, slots: torch.Tensor, starts: torch.Tensor, block_size: int
) -> CompactionPlan | None:
    """The plan of a step, from the batch of any of its text-only groups; None when nothing is dropped.

    Parameters
    ----------
    table
        (requests, columns) int32, indexed by position; what lies past a request's length is ignored.
    seq_lens
        (requests,) int32.
    slots
        (tokens,) int64: slots below `block_size` are in the null block.
    starts
        (requests + 1,) int32: first query of each request.
    block_size
        Tokens of a block.
    """
    lengths = seq_lens.numpy()
    most = -(-int(lengths.max(initial=0)) // block_size)
    remaining = lengths[:, None] - np.arange(0, most * block_size, block_size)
    live = remaining > 0
    keep = live & (table.numpy()[:, :most] != NULL_BLOCK)
    if np.array_equal(keep, live):
        return None
    kept_blocks = keep.sum(axis=1)
    columns = np.argsort(~keep, axis=1, kind="stable")[:, : int(kept_blocks.max())]
    kept = (np.minimum(remaining, block_size) * keep).sum(axis=1, dtype=np.int32)
    queries = _kept_queries(slots.numpy() < block_size, starts.numpy())
    return CompactionPlan(columns, torch.from_numpy(kept), int(kept.max()), queries)


def _kept_queries(dropped: np.ndarray, starts: np.ndarray) -> KeptQueries | None:
    if not dropped.any():
        return None
    kept_indices = np.flatnonzero(~dropped)
    new_starts = np.searchsorted(kept_indices, starts)
    counts = np.diff(new_starts)
    requests = np.flatnonzero(counts)
    return KeptQueries(
        torch.from_numpy(requests),
        torch.from_numpy(np.append(new_starts[requests], len(kept_indices)).astype(np.int32)),
        int(counts.max(initial=0)),
        HostRows(kept_indices, starts[1:].astype(np.int64) - 1),
    )
