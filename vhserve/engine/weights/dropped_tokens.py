"""Projections that leave out a layer's last heads for the tokens that these drop.

The output of text-only heads for a dropped token is zero, so in a prefill nearly all tokens of an image need the
projections of the other heads only. Owns what this takes on any device: which tokens of the batch that runs are kept,
and the operator that torch.compile does not look into. Does not know how a weight is held (`packed_parts` for CPUs,
`weight_views` for devices), which layers it is worthwhile in (`projection_choice`), plans, nor how the dropped tokens
are chosen.
"""

from typing import Any, NamedTuple

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.utils.torch_utils import LayerNameType

from vhserve.compat.layers import layer_in_batch, metadata_of, name_for_operator
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.attention.query_routing import RoutedMetadata
from vhserve.engine.operators import opaque_operator


class HeadParts(NamedTuple):
    """Sizes of one run of a projection's outputs or inputs: those of the other heads come first."""

    others: int
    lasts: int


class DroppedTokensLinear(UnquantizedLinearMethod):
    """vLLM's unquantised linear method, without the last heads' part for tokens that they drop.

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

    def project_kept(self, x: torch.Tensor, bias: torch.Tensor | None, kept: torch.Tensor | None) -> torch.Tensor:
        """Project a batch.

        Parameters
        ----------
        x
            (tokens, inputs). Of the output's projection, the last heads' columns of dropped tokens are zero, which the
            attention sees to in every step: whether they are read differs from step to step.
        bias
            (outputs,).
        kept
            (kept tokens,) int64: indices of the tokens that the last heads keep; None when none is dropped.

        Returns
        -------
        (tokens, outputs). Undefined, and not read by anyone: rows of padding, and of queries, keys and values the last
        heads' columns of dropped tokens. Norms and rotary positions between here and the attention work row by row;
        scales of a quantised KV cache are constant, or a token's own; keys and values go to the null block, which is in
        no sequence; and the attention takes the queries of kept tokens alone.
        """
        raise NotImplementedError

    def project(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """`apply` outside of compiled code, where the metadata of the batch that runs is at hand."""
        return self.project_kept(x, bias, self.kept_tokens())

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if torch.compiler.is_compiling():
            projected: torch.Tensor = _dropped_tokens_linear(
                x, bias, name_for_operator(self.layer_name), self.kind, layer.output_size_per_partition
            )
            return projected
        return self.project(x, bias)

    def stock(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """vLLM's own projection with a layer's whole weight."""
        return super().apply(layer, x, bias)

    def kept_tokens(self) -> torch.Tensor | None:
        """Indices of the tokens of the batch that runs which are kept; None when none is dropped."""
        metadata: RoutedMetadata | None = metadata_of(self.layer_name)
        routing = None if metadata is None else metadata.routing
        return None if routing is None or routing.host is None else routing.kept_indices


def _project(
    x: torch.Tensor, bias: torch.Tensor | None, layer_name: LayerNameType, kind: str, outputs: int
) -> torch.Tensor:
    """Opaque to torch.compile: the number of dropped tokens differs from batch to batch."""
    layer: PartialAttention = layer_in_batch(layer_name)
    return layer.projection(kind).project(x, bias)


def _projected(
    x: torch.Tensor, bias: torch.Tensor | None, layer_name: LayerNameType, kind: str, outputs: int
) -> torch.Tensor:
    return x.new_empty(x.shape[0], outputs)


_dropped_tokens_linear = opaque_operator("dropped_tokens_linear", _project, _projected)
