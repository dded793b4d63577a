"""Mean compensation: the mean output of removed heads, folded into the bias that follows the layer's attention.

Owns where heads are in a checkpoint's tensors, and the sum of the checkpoint's bias with the compensation. Does not
know how the tensors are read.
"""

from collections.abc import Sequence

import torch

from vhserve.engine.layer_plan import RemovedMeans


def head_rows(heads: Sequence[int], head_size: int) -> torch.Tensor:
    """Indices of the heads' rows in a q, k or v weight, or of their columns in an o weight; shape (heads * size,).

    >>> head_rows([2, 0], 3).tolist()
    [6, 7, 8, 0, 1, 2]
    """
    # On the CPU, where checkpoints are read, whatever device vLLM builds its models on.
    first = torch.tensor(list(heads), dtype=torch.long, device="cpu")[:, None] * head_size
    return (first + torch.arange(head_size, device="cpu")).reshape(-1)


class MeanCompensation:
    """What one layer's removed heads would have added to its output on average."""

    def __init__(self, removed: RemovedMeans) -> None:
        self.columns = head_rows(removed.heads, removed.means.shape[1])
        self.mean = torch.tensor(removed.means, dtype=torch.float32, device="cpu").reshape(-1)

    def bias(self, full: torch.Tensor) -> torch.Tensor:
        """The compensation of the layer's output: shape (hidden size,), float32.

        Parameters
        ----------
        full
            The checkpoint's `o_proj` weight, shape (hidden size, query heads * head size).
        """
        return full.index_select(1, self.columns.to(full.device)).to("cpu", torch.float32) @ self.mean


class BiasSum:
    """A bias that is the sum of the checkpoint's own and the compensation, which are known in either order."""

    def __init__(self) -> None:
        self.parts: dict[str, torch.Tensor] = {}

    def put(self, part: str, value: torch.Tensor, total: torch.Tensor) -> None:
        """Set one part, or set it again when weights are reloaded, and write the sum of the known parts to `total`.

        `value` and `total` have shape (hidden size,).
        """
        self.parts[part] = value.to("cpu", torch.float32)
        total.copy_(torch.stack(list(self.parts.values())).sum(0))
