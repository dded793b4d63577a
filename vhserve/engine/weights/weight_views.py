"""Projections for devices that leave out the last heads for dropped tokens: the weight stays as vLLM holds it.

Where few tokens are dropped it is vLLM's one GEMM, to the bit, so a decode step is stock's. Where many are, all tokens
meet the other heads' part of the weight, a view that cuBLAS reads and writes in place, and the kept ones, which are
few, vLLM's one GEMM. Owns the two ways and the choice between them by size. Does not know which tokens are dropped
(`dropped_tokens`).

CUDA graphs hold vLLM's one GEMM, whatever batch they are captured with. A replay projects all tokens with all heads,
which is right for any batch: keys and values that nobody needs go to the null block, and the attention sets its output
to zero for dropped queries in every step. So a step may replay some projections and run others outside of graphs.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar, Final

import torch
import torch.nn.functional as F

from vhserve.engine.weights.dropped_tokens import DroppedTokensLinear, HeadParts

LAUNCH_WORTH: Final = 1_250_000_000
"""Multiply-adds of a GEMM that take as long as a launch: some 5 µs at 500 TFLOP/s, two operations each. Not measured;
`python -m benchmarks.dropped_tokens` finds on a GPU where the two ways cross."""


class WeightViews(DroppedTokensLinear):
    """vLLM's unquantised linear method, for kept tokens where it pays; the others meet a view of the weight.

    Subclasses say which part of the weight is the other heads'.

    Parameters
    ----------
    parts
        Sizes of the weight's dimension along which heads lie.
    launch_worth
        Multiply-adds to be saved for each launch more than vLLM's one.
    """

    launches: ClassVar[int]
    """Kernels more than vLLM's one, where tokens are dropped."""

    def __init__(self, layer_name: str, kind: str, parts: HeadParts, launch_worth: int | None = None) -> None:
        super().__init__(layer_name, kind)
        self.lasts_share = parts.lasts / sum(parts)
        self.least_saved: float = self.launches * (LAUNCH_WORTH if launch_worth is None else launch_worth)
        self.layer: Any = None

    def by_others(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The other heads' projection, (tokens, outputs)."""
        raise NotImplementedError

    def process_weights_after_loading(self, layer: Any) -> None:
        super().process_weights_after_loading(layer)
        self.layer = layer  # and not its weight, which vLLM may replace

    def saved(self, tokens: int, kept: int) -> float:
        """Multiply-adds that are saved: of dropped tokens the last heads' are, of kept ones the others' come twice."""
        saved: float = self.layer.weight.numel() * (tokens * self.lasts_share - kept)
        return saved

    def project_kept(self, x: torch.Tensor, bias: torch.Tensor | None, kept: torch.Tensor | None) -> torch.Tensor:
        if kept is None or self.saved(len(x), len(kept)) < self.least_saved or is_captured(x):
            return self.stock(self.layer, x, bias)
        output = self.by_others(x, self.layer.weight, bias)
        if len(kept):
            output.index_copy_(0, kept, self.stock(self.layer, x.index_select(0, kept), bias))
        return output


class QKVViews(WeightViews):
    """Of `qkv_proj`, whose outputs are three runs of heads.

    Parameters
    ----------
    outputs
        Of queries, keys and values.
    """

    launches = 5

    def __init__(self, layer_name: str, outputs: Sequence[HeadParts], launch_worth: int | None = None) -> None:
        others, lasts = (sum(sizes) for sizes in zip(*outputs, strict=True))
        super().__init__(layer_name, "qkv_proj", HeadParts(others, lasts), launch_worth)
        starts = accumulate((sum(run) for run in outputs), initial=0)
        self.others = [slice(start, start + run.others) for start, run in zip(starts, outputs, strict=False)]

    def by_others(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        output = x.new_empty(len(x), len(weight))
        for run in self.others if self.lasts_share < 1 else ():
            if bias is None:
                torch.mm(x, weight[run].t(), out=output[:, run])
            else:
                torch.addmm(bias[run], x, weight[run].t(), out=output[:, run])
        return output


class OutputViews(WeightViews):
    """Of `o_proj`, whose output is the sum of what the heads contribute.

    Parameters
    ----------
    inputs
        Outputs of the attention.
    """

    launches = 3

    def __init__(self, layer_name: str, inputs: HeadParts, launch_worth: int | None = None) -> None:
        super().__init__(layer_name, "o_proj", inputs, launch_worth)
        self.others = slice(0, inputs.others)

    def by_others(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(x[:, self.others], weight[:, self.others], bias)


def is_captured(x: torch.Tensor) -> bool:
    """Whether what is done now becomes part of a CUDA graph, which is replayed for batches that drop other tokens."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()
