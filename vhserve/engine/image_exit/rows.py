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
        (rows,) int64, ascending: their indices in the batch. Every query that text-only heads keep, and the last ones
        of every request, which vLLM samples from though they may be of an image.
    routing
        The routing of text-only queries among these rows; None: the kernel gets all of them.
    """

    indices: torch.Tensor
    routing: QueryRouting | None


def kept_rows(routing: QueryRouting | None, sampled: int = 1) -> KeptRows | None:
    """Rows to keep, from the routing of a text-only attention; None: all, or the host does not know which.

    Parameters
    ----------
    sampled
        Most queries of a request that vLLM samples from in a step: more than one where drafts follow the last token,
        which is that of the prompt when all of a prompt was loaded from the host's memory.
    """
    if routing is None or routing.host is None:
        return None
    host, device = routing.host, routing.kept_indices.device
    last = host.last[:, None] - np.arange(sampled)
    rows = np.union1d(host.kept, last[last >= 0])
    if len(rows) == routing.tokens:
        return None
    if len(rows) == len(host.kept):
        return KeptRows(routing.kept_indices, None)
    places = np.searchsorted(rows, host.kept)
    own = QueryRouting(len(rows), async_tensor_h2d(places, device), HostRows(places, np.searchsorted(rows, host.last)))
    return KeptRows(async_tensor_h2d(rows, device), own)
