"""Memory of recorded graphs: what of it CUDA may give to a graph that is captured later, because nobody refers to it.

Knows nothing of what graphs do. Counts what torch refers to; the graphs' own references are told to it.
"""

import ctypes
from collections import Counter
from typing import Any

import torch
from torch.utils._pytree import tree_map_only


class GraphMemory:
    """That of all graphs which share a pool."""

    def __init__(self) -> None:
        self._holders: Counter[int] = Counter()
        self._places: list[torch.Tensor] = []

    def hold(self, tree: Any) -> Any:
        """The same with tensors of the same memory, for a graph to keep: others' references can be told from these."""
        return tree_map_only(torch.Tensor, self._alias, tree)

    def own(self, place: torch.Tensor) -> None:
        """Note a tensor that was made while a graph was captured, and lies in the pool."""
        self._places.append(self._alias(place))

    def _alias(self, tensor: torch.Tensor) -> torch.Tensor:
        self._holders[tensor.untyped_storage()._cdata] += 1
        return tensor.detach()

    def free(self) -> list[torch.Tensor]:
        """Tensors in the pool that only graphs refer to."""
        return [one for one in self._places if _references(one) == self._holders[one.untyped_storage()._cdata]]


def unowned(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory, which this does not keep from being given to others."""
    if not tensor.numel():
        return tensor
    storage = tensor.untyped_storage()
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    flat = torch.frombuffer(memory, dtype=tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _references(tensor: torch.Tensor) -> int:
    storage = tensor.untyped_storage()
    return torch._C._storage_Use_Count(storage._cdata) - 1  # this function's own
