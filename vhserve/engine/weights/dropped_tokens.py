"""Projections that compute only the full heads' part for tokens that a layer's text-only heads drop.

The output of text-only heads for a dropped token is zero, so in a prefill nearly all tokens of an image need the
projections of the full heads only. For CPUs, where the metadata says which tokens those are before the layers run. A
batch that drops nothing is projected by vLLM's own code, with bit-identical results. Does not know plans, nor how the
dropped tokens are chosen.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import nn
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.models.llama import LlamaAttention
from vllm.platforms import current_platform

from profiles.planning.layout import LayerLayout
from vhserve.compat import layer_in_batch, metadata_of
from vhserve.engine.attention.lane_attention import TextOnlyAttention
from vhserve.engine.attention.query_routing import RoutedMetadata
from vhserve.engine.attention.split_attention import SplitAttention

Span = tuple[int, int]
"""Start and stop."""

WORTHWHILE: Final = 0.5
"""Least share of text-only heads in a layer: the full heads' weights are kept twice, the second time by themselves."""


class DroppedTokensLinear(UnquantizedLinearMethod):
    """vLLM's unquantised linear method, with only a part of the weight for dropped tokens.

    Parameters
    ----------
    layer_name
        Attention layer of the text-only heads, whose metadata has the dropped tokens.
    kind
        Which of the layer's projections it is.
    outputs, inputs
        Rows and columns of the weight that belong to full heads.
    """

    def __init__(self, layer_name: str, kind: str, outputs: Sequence[Span], inputs: Span) -> None:
        super().__init__()
        self.layer_name, self.kind, self.outputs, self.inputs = layer_name, kind, outputs, inputs
        self.full_part: Any = None  # the full heads' weight by itself; stays None when the layer has no full heads
        self.layer: Any = None  # vLLM's linear layer, known when its weights are loaded

    def process_weights_after_loading(self, layer: Any) -> None:
        weight: torch.Tensor = layer.weight.data[:, slice(*self.inputs)]
        weight = torch.cat([weight[slice(*rows)] for rows in self.outputs])
        if weight.numel():
            self.full_part = nn.Module()
            self.full_part.weight = nn.Parameter(weight, requires_grad=False)
            super().process_weights_after_loading(self.full_part)
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
        (tokens, outputs). Undefined, and not read by anyone: rows of padding, and the text-only heads' columns of
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
        """Fill the rows of dropped tokens in the columns of full heads."""
        if self.full_part is None:
            output[dropped] = 0 if bias is None else bias
            return output
        projected = super().apply(self.full_part, x[:, slice(*self.inputs)].index_select(0, dropped))
        done = 0
        for start, stop in self.outputs:
            columns = projected[:, done : done + stop - start]
            done += stop - start
            if bias is not None:
                columns += bias[start:stop]
            output[:, start:stop].index_copy_(0, dropped, columns)
        return output


def use_dropped_tokens_linear(attention: LlamaAttention, layout: LayerLayout) -> None:
    """Set the linear methods of a layer's projections, on CPUs and where at least `WORTHWHILE` heads are text-only.

    Parameters
    ----------
    attention
        Already shrunk to the heads of `layout`.
    """
    if not current_platform.is_cpu() or len(layout.text_only) < WORTHWHILE * attention.num_heads:
        return
    attn: Any = attention.attn
    text: TextOnlyAttention = attn.text if isinstance(attn, SplitAttention) else attn
    size = attention.head_dim
    queries, keys = len(layout.full) * size, len(layout.kv_full) * size
    firsts = (0, attention.q_size, attention.q_size + attention.kv_size)
    outputs = [(first, first + count) for first, count in zip(firsts, (queries, keys, keys), strict=True)]
    methods = {
        "qkv_proj": DroppedTokensLinear(text.layer_name, "qkv_proj", outputs, (0, attention.hidden_size)),
        "o_proj": DroppedTokensLinear(text.layer_name, "o_proj", [(0, attention.hidden_size)], (0, queries)),
    }
    for kind, method in methods.items():
        text.add_projection(kind, method)
        getattr(attention, kind).quant_method = method  # as vLLM's linear layers do when they are built


@torch.library.custom_op("vhserve::dropped_tokens_linear", mutates_args=())
def _dropped_tokens_linear(
    x: torch.Tensor, bias: torch.Tensor | None, layer_name: str, kind: str, outputs: int
) -> torch.Tensor:
    """Opaque to torch.compile: the number of dropped tokens differs from batch to batch."""
    layer: TextOnlyAttention = layer_in_batch(layer_name)
    return layer.projection(kind).project(x, bias)


@_dropped_tokens_linear.register_fake
def _(x: torch.Tensor, bias: torch.Tensor | None, layer_name: str, kind: str, outputs: int) -> torch.Tensor:
    return x.new_empty(x.shape[0], outputs)
