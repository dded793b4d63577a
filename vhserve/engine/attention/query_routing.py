"""Which queries of a batch the kernel of a text-only attention gets, and how that travels in vLLM's attention metadata.

Owns the subclass of a backend's metadata that carries the routing. Does not know how queries are chosen
(`device_compaction`, `host_compaction`) or how they are moved (`partial_impl`).
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class HostRows:
    """Indices in the batch that are known on the host.

    Attributes
    ----------
    kept
        (kept queries,) int64, ascending: those that the kernel gets.
    last
        (requests,) int64: each request's last query.
    """

    kept: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class QueryRouting:
    """Queries of a batch that the kernel gets, and those whose output is zero.

    Attributes
    ----------
    tokens
        Queries of the batch, without padding.
    kept_indices
        (kept queries,) int64: index in the batch of each query that the kernel gets, in its order. Where only the
        device knows them, shapes are fixed: indices of dropped queries follow, (tokens,) in all.
    host
        What of it the host knows; None: nothing.
    dropped_mask
        (tokens,) bool: rows that `kept_indices` ends with, where only the device knows them.
    """

    tokens: int
    kept_indices: torch.Tensor
    host: HostRows | None
    dropped_mask: torch.Tensor | None = None


class RoutedMetadata:
    """Mixin before a backend's metadata class.

    Attributes
    ----------
    routing
        None when the kernel gets all queries.
    """

    routing: QueryRouting | None


def with_routing(metadata: object, routing: QueryRouting | None) -> RoutedMetadata:
    """A shallow copy of a backend's metadata, of a subclass of its class, with the routing in place of any other.

    vLLM does the same in `create_fast_prefill_custom_backend` (v1/attention/backends/utils.py).
    """
    stock: Any = type(metadata)
    routed_class = stock if isinstance(metadata, RoutedMetadata) else _routed_class(stock)
    routed: RoutedMetadata = routed_class.__new__(routed_class)
    vars(routed).update(vars(metadata))
    routed.routing = routing
    return routed


@functools.cache
def _routed_class(stock: type) -> type[RoutedMetadata]:
    name = f"Routed{stock.__name__}"
    return type(name, (RoutedMetadata, stock), {"__module__": __name__, "__qualname__": name})
