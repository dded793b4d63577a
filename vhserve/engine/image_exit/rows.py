"""Which rows of a batch the layers behind the image exit compute, and where these are among all rows.

Owns the choice, from the routing of text-only queries (`attention.query_routing`). Does not know layers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from vhserve.engine.attention.query_routing import HostRows, QueryRouting


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
    if routing is None or routing.host is None:
        return None
    host, device = routing.host, routing.kept_indices.device
    rows = np.union1d(host.kept, host.last)
    if len(rows) == routing.tokens:
        return None
    if len(rows) == len(host.kept):
        return KeptRows(routing.kept_indices, None)
    places = np.searchsorted(rows, host.kept)
    own = QueryRouting(len(rows), async_tensor_h2d(places, device), HostRows(places, np.searchsorted(rows, host.last)))
    return KeptRows(async_tensor_h2d(rows, device), own)
