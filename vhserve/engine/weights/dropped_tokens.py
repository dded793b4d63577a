"""Projections that leave out a layer's last heads for the tokens that these drop.

The output of text-only heads for a dropped token is zero, so in a prefill nearly all tokens of an image need the
projections of the other heads only. For CPUs, where the metadata says which tokens those are before the layers run. A
batch that drops nothing is projected by vLLM's own code, with bit-identical results. Does not know plans, nor how the
dropped tokens are chosen.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import nn
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.platforms import current_platform

from profiles.treatments import ALL_BLOCKS
from vhserve.compat.layers import layer_in_batch, metadata_of
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.attention.query_routing import RoutedMetadata
from vhserve.engine.attention.split_attention import SplitAttention

Span = tuple[int, int]
"""Start and stop."""

WORTHWHILE: Final = 0.5
"""Least share of these heads in a layer: the other heads' weights are kept twice, the second time by themselves."""


class DroppedTokensLinear(UnquantizedLinearMethod):
    """vLLM's unquantised linear method, with only a part of the weight for dropped tokens.

    Parameters
    ----------
    layer_name
        Attention layer of the last heads, whose metadata has the dropped tokens.
    kind
        Which of the layer's projections it is.
    outputs, inputs
        Rows and columns of the weight that belong to the other heads.
    """

    def __init__(self, layer_name: str, kind: str, outputs: Sequence[Span], inputs: Span) -> None:
        super().__init__()
        self.layer_name, self.kind, self.outputs, self.inputs = layer_name, kind, outputs, inputs
        self.other_part: Any = None  # the other heads' weight by itself; stays None when the layer has none
        self.layer: Any = None  # vLLM's linear layer, known when its weights are loaded

    def process_weights_after_loading(self, layer: Any) -> None:
        weight: torch.Tensor = layer.weight.data[:, slice(*self.inputs)]
        weight = torch.cat([weight[slice(*rows)] for rows in self.outputs])
        if weight.numel():
            self.other_part = nn.Module()
            self.other_part.weight = nn.Parameter(weight, requires_grad=False)
            super().process_weights_after_loading(self.other_part)
        super().process_weights_after_loading(layer)
        self.layer = layer

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if torch.compiler.is_compiling():
            projected: torch.Tensor = _dropped_tokens_linear(
                x, bias, self.layer_name, self.kind, layer.output_size_per_partition
            )
            return projected
        return self.project(x, bias)

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
        metadata: RoutedMetadata | None = metadata_of(self.layer_name)
        routing = None if metadata is None else metadata.routing
        if routing is None or routing.dropped_indices is None or routing.kept_indices is None:
            return super().apply(self.layer, x, bias)
        output = x.new_empty(x.shape[0], self.layer.output_size_per_partition)
        kept = routing.kept_indices
        if kept.numel():
            output.index_copy_(0, kept, super().apply(self.layer, x.index_select(0, kept), bias))
        return self._project_dropped(x, routing.dropped_indices, bias, output)

    def _project_dropped(
        self, x: torch.Tensor, dropped: torch.Tensor, bias: torch.Tensor | None, output: torch.Tensor
    ) -> torch.Tensor:
        """Fill the rows of dropped tokens in the columns of the other heads."""
        if self.other_part is None:
            output[dropped] = 0 if bias is None else bias
            return output
        projected = super().apply(self.other_part, x[:, slice(*self.inputs)].index_select(0, dropped))
        done = 0
        for start, stop in self.outputs:
            columns = projected[:, done : done + stop - start]
            done += stop - start
            if bias is not None:
                columns += bias[start:stop]
            output[:, start:stop].index_copy_(0, dropped, columns)
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
    queries = (module.num_heads - last.num_heads) * head_size
    keys = (module.num_kv_heads - last.num_kv_heads) * head_size
    firsts = (0, module.q_size, module.q_size + module.kv_size)
    outputs = [(first, first + count) for first, count in zip(firsts, (queries, keys, keys), strict=True)]
    hidden = module.qkv_proj.hidden_size
    methods = {
        "qkv_proj": DroppedTokensLinear(last.layer_name, "qkv_proj", outputs, (0, hidden)),
        "o_proj": DroppedTokensLinear(last.layer_name, "o_proj", [(0, hidden)], (0, queries)),
    }
    for kind, method in methods.items():
        last.add_projection(kind, method)
        getattr(module, kind).quant_method = method  # as vLLM's linear layers do when they are built


@torch.library.custom_op("vhserve::dropped_tokens_linear", mutates_args=())
def _dropped_tokens_linear(
    x: torch.Tensor, bias: torch.Tensor | None, layer_name: str, kind: str, outputs: int
) -> torch.Tensor:
    """Opaque to torch.compile: the number of dropped tokens differs from batch to batch."""
    layer: PartialAttention = layer_in_batch(layer_name)
    return layer.projection(kind).project(x, bias)


@_dropped_tokens_linear.register_fake
def _(x: torch.Tensor, bias: torch.Tensor | None, layer_name: str, kind: str, outputs: int) -> torch.Tensor:
    return x.new_empty(x.shape[0], outputs)
