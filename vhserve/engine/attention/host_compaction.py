"""Drops null blocks and their tokens from a batch whose metadata is in host memory: what is dropped is left out.

Where null blocks stand is the same in all text-only groups of a step, so most of the work is done once for all of them
(`Shape`), and a group only picks its own blocks. In numpy: on a handful of requests its calls cost a quarter of
torch's. Does not know layers, heads or back ends; `compaction` does the same on a device, in fixed shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

NULL_BLOCK = 0


@dataclass(frozen=True)
class Queries:
    """Queries that stay, when some stand in null blocks."""

    rows: torch.Tensor  # (kept requests,) int64: requests that keep a query
    starts: torch.Tensor  # (kept requests + 1,) int32
    longest: int
    order: torch.Tensor  # (kept queries,) int64: their old indices
    dropped: torch.Tensor  # (tokens,) bool
    skipped: torch.Tensor  # (tokens - kept queries,) int64: where `dropped` is true


@dataclass(frozen=True)
class Shape:
    """What all text-only groups of a step have in common."""

    columns: np.ndarray  # (requests, most kept blocks) int64: columns of the kept blocks, in order; then others
    seq_lens: torch.Tensor  # (requests,) int32: kept tokens
    longest: int
    queries: Queries | None  # None: all queries stay

    def block_table(self, table: torch.Tensor) -> torch.Tensor:
        """The kept blocks of one group, (requests, most kept blocks) int32; past a request's own, meaningless."""
        return torch.from_numpy(np.take_along_axis(table.numpy(), self.columns, axis=1))


def shape_of(
    table: torch.Tensor, seq_lens: torch.Tensor, slots: torch.Tensor, starts: torch.Tensor, block_size: int
) -> Shape | None:
    """The shape of a batch, told by any of its text-only groups; None when nothing is dropped.

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
    queries = _queries(slots.numpy() < block_size, starts.numpy())
    return Shape(columns, torch.from_numpy(kept), int(kept.max()), queries)


def _queries(dropped: np.ndarray, starts: np.ndarray) -> Queries | None:
    if not dropped.any():
        return None
    order = np.flatnonzero(~dropped)
    new_starts = np.searchsorted(order, starts)
    counts = np.diff(new_starts)
    rows = np.flatnonzero(counts)
    return Queries(
        torch.from_numpy(rows),
        torch.from_numpy(np.append(new_starts[rows], len(order)).astype(np.int32)),
        int(counts.max(initial=0)),
        torch.from_numpy(order),
        torch.from_numpy(dropped),
        torch.from_numpy(np.flatnonzero(dropped)),
    )
