"""Which rows of a batch the layers behind the image exit compute, and where these are among all rows.

Owns the choice, from the routing of text-only queries (`attention.query_routing`). Does not know layers.
"""

from dataclasses import dataclass

import numpy as np
import torch

from vhserve.engine.attention.query_routing import QueryRouting


@dataclass(frozen=True)
class KeptRows:
    """Rows that go on.

    Attributes
    ----------
    indices
        (rows,) int64, ascending: their indices in the batch. Every query that text-only heads keep, and the last query
        of every request, which vLLM samples from though it may be one of an image.
    routing
        The routing of text-only queries among these rows; None: the kernel gets all of them.
    """

    indices: torch.Tensor
    routing: QueryRouting | None


def kept_rows(routing: QueryRouting | None) -> KeptRows | None:
    """Rows to keep, from the routing of a text-only attention; None: all, or the host does not know which."""
    if routing is None or routing.kept_indices is None or routing.last_indices is None:
        return None
    kept = routing.kept_indices.numpy()
    rows = np.union1d(kept, routing.last_indices.numpy())
    if len(rows) == routing.tokens:
        return None
    indices = torch.from_numpy(rows)
    if len(rows) == len(kept):
        return KeptRows(indices, None)
    places = np.searchsorted(rows, kept)
    dropped = np.ones(len(rows), bool)
    dropped[places] = False
    return KeptRows(
        indices,
        QueryRouting(
            tokens=len(rows),
            kept_indices=torch.from_numpy(places),
            dropped_mask=torch.from_numpy(dropped),
            dropped_indices=torch.from_numpy(np.flatnonzero(dropped)),
        ),
    )
