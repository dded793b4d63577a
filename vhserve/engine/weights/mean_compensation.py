"""What stands in for removed heads: their mean output, folded into the bias that follows the layer's attention.

Knows tensors of a checkpoint and where heads lie in them; not how they get there.
"""

from collections.abc import Sequence

import torch

from profiles.pruning_plan import PruningPlan


def head_rows(heads: Sequence[int], head_size: int) -> torch.Tensor:
    """Indices of the heads' rows in a q, k or v weight, or of their columns in an o weight; shape (heads * size,).

    >>> head_rows([2, 0], 3).tolist()
    [6, 7, 8, 0, 1, 2]
    """
    # On the CPU, where checkpoints are read, whatever device vLLM builds its models on.
    first = torch.tensor(list(heads), dtype=torch.long, device="cpu")[:, None] * head_size
    return (first + torch.arange(head_size, device="cpu")).reshape(-1)


class MeanCompensation:
    """Mean output of one layer's removed heads.

    Parameters
    ----------
    heads
        Removed query heads of the layer.
    means
        Their mean outputs before `o_proj`, shape (heads, head size).
    """

    def __init__(self, heads: Sequence[int], means: torch.Tensor) -> None:
        self.columns = head_rows(heads, means.shape[1])
        self.mean = means.to("cpu", torch.float32).reshape(-1)

    def bias(self, full: torch.Tensor) -> torch.Tensor:
        """What the heads would have added to the layer's output: shape (hidden size,), float32.

        Parameters
        ----------
        full
            The checkpoint's `o_proj` weight, shape (hidden size, query heads * head size).
        """
        return full.index_select(1, self.columns.to(full.device)).to("cpu", torch.float32) @ self.mean


class BiasSum:
    """A bias whose two parts, the checkpoint's own and the stand-in, are read from two tensors in either order."""

    def __init__(self) -> None:
        self.parts: dict[str, torch.Tensor] = {}

    def put(self, part: str, value: torch.Tensor, total: torch.Tensor) -> None:
        """Set one part, again if weights are loaded again, and write the sum of those that are known to `total`."""
        self.parts[part] = value.to("cpu", torch.float32)
        total.copy_(torch.stack(list(self.parts.values())).sum(0))


def mean_compensations(plan: PruningPlan) -> dict[int, MeanCompensation]:
    """What stands in for the removed heads, by layer; empty without mean compensation."""
    if plan.compensation.means is None:
        return {}
    means = torch.tensor(plan.compensation.means, device="cpu")
    removed = plan.heads("removed")
    by_layer: dict[int, list[int]] = {}
    for row, (layer, _) in enumerate(removed):
        by_layer.setdefault(layer, []).append(row)
    return {layer: MeanCompensation([removed[row][1] for row in rows], means[rows]) for layer, rows in by_layer.items()}
