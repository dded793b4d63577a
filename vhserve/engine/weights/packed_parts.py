"""Projections for CPUs that leave out the last heads for dropped tokens: the weight is held in two packed parts.

vLLM packs a weight for CPUs when it is loaded, and nothing can be sliced out of a packed one. So each of the two parts,
the other heads' and the last heads', is packed by itself, and no part twice. Putting the parts together costs a little
in every step, also where no token is dropped. Does not know which tokens are (`dropped_tokens`).
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from vhserve.engine.weights.dropped_tokens import DroppedTokensLinear, HeadParts


class PackedParts(DroppedTokensLinear):
    """vLLM's unquantised linear method, twice: over the other heads, and over the last ones for tokens they keep.

    Subclasses say which rows or columns of the weight are whose, and how the outputs make up one.
    """

    def __init__(self, layer_name: str, kind: str) -> None:
        super().__init__(layer_name, kind)
        self.others: Any = None  # stays None when the layer has no other heads
        self.lasts: Any = None

    def weights(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The other heads' part of a weight and the last heads', of shape (outputs, inputs) each."""
        raise NotImplementedError

    def process_weights_after_loading(self, layer: Any) -> None:
        others, lasts = self.weights(layer.weight.data)
        if others.numel():
            self.others = self._part(others)
        self.lasts = self._part(lasts)
        layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)  # as vLLM does on CPUs

    def _part(self, weight: torch.Tensor) -> Any:
        part = SimpleNamespace(weight=nn.Parameter(weight.contiguous(), requires_grad=False))
        super().process_weights_after_loading(part)  # type: ignore[arg-type]  # whose attributes cost a call each
        return part

    def by_others(self, x: torch.Tensor) -> torch.Tensor:
        """The other heads' projection."""
        return self.stock(self.others, x)

    def by_lasts(self, x: torch.Tensor) -> torch.Tensor:
        """The last heads' projection."""
        return self.stock(self.lasts, x)


class PackedQKV(PackedParts):
    """Of `qkv_proj`, whose outputs are three runs of heads.

    Parameters
    ----------
    outputs
        Of queries, keys and values.
    """

    def __init__(self, layer_name: str, outputs: Sequence[HeadParts]) -> None:
        super().__init__(layer_name, "qkv_proj")
        self.outputs = tuple(outputs)
        self.others_sizes, self.lasts_sizes = (list(sizes) for sizes in zip(*outputs, strict=True))

    def weights(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = weight.split_with_sizes([size for run in self.outputs for size in run])
        return torch.cat(parts[0::2]), torch.cat(parts[1::2])

    def project_kept(self, x: torch.Tensor, bias: torch.Tensor | None, kept: torch.Tensor | None) -> torch.Tensor:
        output = self._of_all(x) if kept is None else self._of_kept(x, kept)
        return output if bias is None else output.add_(bias)

    def _of_all(self, x: torch.Tensor) -> torch.Tensor:
        lasts = self.by_lasts(x)
        if self.others is None:
            return lasts
        others = self.by_others(x).split_with_sizes(self.others_sizes, -1)
        runs = zip(others, lasts.split_with_sizes(self.lasts_sizes, -1), strict=True)
        return torch.cat([part for run in runs for part in run], -1)

    def _of_kept(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Only what is defined is written: most rows are those of dropped tokens."""
        output = x.new_empty(x.shape[0], sum(self.others_sizes) + sum(self.lasts_sizes))
        parts = output.split_with_sizes([size for run in self.outputs for size in run], -1)
        if self.others is not None:
            for part, of_run in zip(
                parts[0::2], self.by_others(x).split_with_sizes(self.others_sizes, -1), strict=True
            ):
                part.copy_(of_run)
        if len(kept):
            lasts = self.by_lasts(x.index_select(0, kept)).split_with_sizes(self.lasts_sizes, -1)
            for part, of_run in zip(parts[1::2], lasts, strict=True):
                part.index_copy_(0, kept, of_run)
        return output


class PackedOutput(PackedParts):
    """Of `o_proj`, whose output is the sum of what the heads contribute.

    Parameters
    ----------
    inputs
        Outputs of the attention.
    outputs
        Hidden size.
    """

    def __init__(self, layer_name: str, inputs: HeadParts, outputs: int) -> None:
        super().__init__(layer_name, "o_proj")
        self.inputs, self.outputs = inputs, outputs

    def weights(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        others, lasts = weight.split_with_sizes(list(self.inputs), -1)
        return others, lasts

    def project_kept(self, x: torch.Tensor, bias: torch.Tensor | None, kept: torch.Tensor | None) -> torch.Tensor:
        of_others, of_lasts = x.split_with_sizes(list(self.inputs), -1)
        if self.others is None:
            output = self._lasts_alone(of_lasts, kept)
        else:
            output = self.by_others(of_others)
            if kept is None:
                output += self.by_lasts(of_lasts)
            elif len(kept):
                output.index_add_(0, kept, self.by_lasts(of_lasts.index_select(0, kept)))
        return output if bias is None else output.add_(bias)

    def _lasts_alone(self, x: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        if kept is None:
            return self.by_lasts(x)
        output = x.new_zeros(x.shape[0], self.outputs)
        if len(kept):
            output.index_copy_(0, kept, self.by_lasts(x.index_select(0, kept)))
        return output
