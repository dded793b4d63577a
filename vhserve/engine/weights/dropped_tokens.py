"""Projections that pass over the tokens which a layer's text-only heads drop.

What these heads put out for a dropped token is zero, so in a prefill nearly all tokens of an image need the projections
of the full heads only. For hosts, where metadata tells which tokens those are before the layers run. A batch that
drops nothing is projected as ever, to the bit. Knows neither plans nor which blocks are dropped.
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
from vhserve.engine.attention.split_attention import SplitAttention

Span = tuple[int, int]
"""Start and stop."""

WORTHWHILE: Final = 0.5
"""Share of a layer's heads that must be text-only: the full heads' projections are kept twice, once by themselves."""


class SkippingLinear(UnquantizedLinearMethod):
    """vLLM's linear layer without quantisation, in which dropped tokens meet a part of the weights only.

    Parameters
    ----------
    name
        Attention layer of the text-only heads, whose metadata tells which tokens they drop.
    kind
        Which of the layer's projections it is.
    outputs, inputs
        Rows and columns of the weight that belong to full heads.
    """

    def __init__(self, name: str, kind: str, outputs: Sequence[Span], inputs: Span) -> None:
        super().__init__()
        self.name, self.kind, self.outputs, self.inputs = name, kind, outputs, inputs
        self.part: Any = None
        self.layer: Any = None  # known when its weights are

    def process_weights_after_loading(self, layer: Any) -> None:
        weight: torch.Tensor = layer.weight.data[:, slice(*self.inputs)]
        weight = torch.cat([weight[slice(*rows)] for rows in self.outputs])
        if weight.numel():
            self.part = nn.Module()
            self.part.weight = nn.Parameter(weight, requires_grad=False)
            super().process_weights_after_loading(self.part)
        super().process_weights_after_loading(layer)
        self.layer = layer

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if torch.compiler.is_compiling():
            made: torch.Tensor = _skipping_linear(x, bias, self.name, self.kind, layer.output_size_per_partition)
            return made
        return self.now(x, bias)

    def now(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The same, with the batch's metadata at hand."""
        metadata = metadata_of(self.name)
        moved = None if metadata is None else metadata.text_only
        if moved is None or moved.skipped is None:
            return super().apply(self.layer, x, bias)
        width: int = self.layer.output_size_per_partition
        # What is left as it was: rows past the batch's, and what text-only heads would get of a dropped token. Nobody
        # reads either; keys and values of it go to the null block.
        output = x.new_empty(x.shape[0], width)
        if moved.order.numel():
            output.index_copy_(0, moved.order, super().apply(self.layer, x.index_select(0, moved.order), bias))
        return self._of_full_heads(x, moved.skipped, bias, output)

    def _of_full_heads(
        self, x: torch.Tensor, skipped: torch.Tensor, bias: torch.Tensor | None, output: torch.Tensor
    ) -> torch.Tensor:
        """Fill the rows of dropped tokens, as far as full heads have a part in them."""
        if self.part is None:
            output[skipped] = 0 if bias is None else bias
            return output
        narrow = super().apply(self.part, x[:, slice(*self.inputs)].index_select(0, skipped))
        done = 0
        for start, stop in self.outputs:
            columns = narrow[:, done : done + stop - start]
            done += stop - start
            if bias is not None:
                columns += bias[start:stop]
            output[:, start:stop].index_copy_(0, skipped, columns)
        return output


def skip_dropped_tokens(attention: LlamaAttention, layout: LayerLayout) -> None:
    """Let a layer's projections pass over what its text-only heads drop, where that is known in time and worthwhile."""
    if not current_platform.is_cpu() or len(layout.text_only) < WORTHWHILE * attention.num_heads:
        return
    attn: Any = attention.attn
    text = attn.text if isinstance(attn, SplitAttention) else attn
    size = attention.head_dim
    queries, keys = len(layout.full) * size, len(layout.kv_full) * size
    firsts = (0, attention.q_size, attention.q_size + attention.kv_size)
    outputs = [(first, first + many) for first, many in zip(firsts, (queries, keys, keys), strict=True)]
    text.projections = {
        "qkv_proj": SkippingLinear(text.layer_name, "qkv_proj", outputs, (0, attention.hidden_size)),
        "o_proj": SkippingLinear(text.layer_name, "o_proj", [(0, attention.hidden_size)], (0, queries)),
    }
    for name, method in text.projections.items():
        getattr(attention, name).quant_method = method


@torch.library.custom_op("vhserve::skipping_linear", mutates_args=())
def _skipping_linear(x: torch.Tensor, bias: torch.Tensor | None, name: str, kind: str, width: int) -> torch.Tensor:
    """Opaque to torch.compile: how many tokens are dropped differs from batch to batch."""
    method: SkippingLinear = layer_in_batch(name).projections[kind]
    return method.now(x, bias)


@_skipping_linear.register_fake
def _(x: torch.Tensor, bias: torch.Tensor | None, name: str, kind: str, width: int) -> torch.Tensor:
    return x.new_empty(x.shape[0], width)
