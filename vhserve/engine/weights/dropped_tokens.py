"""Projections that leave out a layer's last heads for the tokens that these drop.

The output of text-only heads for a dropped token is zero, so in a prefill nearly all tokens of an image need the
projections of the other heads only. For CPUs, where the metadata says which tokens those are before the layers run. A
projection's weight is held in two parts, the other heads' and the last heads', and no part twice. Does not know plans,
nor how the dropped tokens are chosen.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.platforms import current_platform

from profiles.treatments import ALL_BLOCKS
from vhserve.compat.layers import layer_in_batch, metadata_of
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.attention.query_routing import RoutedMetadata
from vhserve.engine.attention.split_attention import SplitAttention
from vhserve.engine.operators import opaque_operator

WORTHWHILE: Final = 0.5
"""Least share of these heads in a layer: two parts are put together in every step, also where no token is dropped."""


class HeadParts(NamedTuple):
    """Sizes of one run of a projection's outputs or inputs: those of the other heads come first."""

    others: int
    lasts: int


class DroppedTokensLinear(UnquantizedLinearMethod):
    """vLLM's unquantised linear method, twice: over the other heads, and over the last ones for tokens they keep.

    Subclasses say which rows or columns of the weight are whose, and how the outputs make up one.

    Parameters
    ----------
    layer_name
        Attention layer of the last heads, whose metadata has the dropped tokens.
    kind
        Which of the layer's projections it is.
    """

    def __init__(self, layer_name: str, kind: str) -> None:
        super().__init__()
        self.layer_name, self.kind = layer_name, kind
        self.others: Any = None  # stays None when the layer has no other heads
        self.lasts: Any = None

    def weights(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The other heads' part of a weight and the last heads', of shape (outputs, inputs) each."""
        raise NotImplementedError

    def project(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """`apply` outside of compiled code, where the metadata of the batch that runs is at hand.

        Parameters
        ----------
        x
            (tokens, inputs).
        bias
            (outputs,).

        Returns
        -------
        (tokens, outputs). Undefined, and not read by anyone: rows of padding, and the last heads' columns of
        dropped tokens, whose keys and values go to the null block.
        """
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

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if torch.compiler.is_compiling():
            projected: torch.Tensor = _dropped_tokens_linear(
                x, bias, self.layer_name, self.kind, layer.output_size_per_partition
            )
            return projected
        return self.project(x, bias)

    def by_others(self, x: torch.Tensor) -> torch.Tensor:
        """The other heads' projection."""
        return super().apply(self.others, x)

    def by_lasts(self, x: torch.Tensor) -> torch.Tensor:
        """The last heads' projection."""
        return super().apply(self.lasts, x)

    def kept_tokens(self) -> torch.Tensor | None:
        """Indices of the tokens of the batch that runs which are kept; None when none is dropped."""
        metadata: RoutedMetadata | None = metadata_of(self.layer_name)
        routing = None if metadata is None else metadata.routing
        return None if routing is None or routing.dropped_indices is None else routing.kept_indices


class DroppedTokensQKV(DroppedTokensLinear):
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

    def project(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        kept = self.kept_tokens()
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


class DroppedTokensOutput(DroppedTokensLinear):
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

    def project(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        kept, (of_others, of_lasts) = self.kept_tokens(), x.split_with_sizes(list(self.inputs), -1)
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


def use_dropped_tokens_linear(module: Any, attention: nn.Module, head_size: int) -> None:
    """Set the linear methods of a layer's projections, on CPUs and where at least `WORTHWHILE` heads drop tokens alike.

    Parameters
    ----------
    module
        Holds the projections; already shrunk to the heads that are kept.
    attention
        Over these heads. The last ones, whose treatment is the harshest, drop the tokens.
    """
    last: Any = attention.parts[-1] if isinstance(attention, SplitAttention) else attention
    if not current_platform.is_cpu() or not isinstance(last, PartialAttention):
        return
    if last.treatment.seen_in_prompt == ALL_BLOCKS or last.num_heads < WORTHWHILE * module.num_heads:
        return
    queries = HeadParts((module.num_heads - last.num_heads) * head_size, last.num_heads * head_size)
    keys = HeadParts((module.num_kv_heads - last.num_kv_heads) * head_size, last.num_kv_heads * head_size)
    methods = {
        "qkv_proj": DroppedTokensQKV(last.layer_name, (queries, keys, keys)),
        "o_proj": DroppedTokensOutput(last.layer_name, queries, module.qkv_proj.hidden_size),
    }
    for kind, method in methods.items():
        last.add_projection(kind, method)
        getattr(module, kind).quant_method = method  # as vLLM's linear layers do when they are built


def _project(x: torch.Tensor, bias: torch.Tensor | None, layer_name: str, kind: str, outputs: int) -> torch.Tensor:
    """Opaque to torch.compile: the number of dropped tokens differs from batch to batch."""
    layer: PartialAttention = layer_in_batch(layer_name)
    return layer.projection(kind).project(x, bias)


def _projected(x: torch.Tensor, bias: torch.Tensor | None, layer_name: str, kind: str, outputs: int) -> torch.Tensor:
    return x.new_empty(x.shape[0], outputs)


_dropped_tokens_linear = opaque_operator("dropped_tokens_linear", _project, _projected)
