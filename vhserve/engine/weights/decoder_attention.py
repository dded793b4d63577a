"""Finds the attention of a decoder's layers in a model that vLLM has built, and says whether it can be given a plan.

Owns the criterion, which asks the modules themselves and no list of model classes: every decoder layer has one
attention of vLLM's own class whose heads can be chosen. Does not change anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from torch import nn
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.models.utils import extract_layer_index
from vllm.v1.attention.backend import AttentionType

from profiles.geometry import ModelGeometry
from profiles.pruning_plan import PruningPlan
from vhserve.errors import ModelNotServable

_FIX: Final = "serve it without --plan"


@dataclass(frozen=True, eq=False)
class DecoderAttention:
    """The attention of one decoder layer.

    Attributes
    ----------
    index
        The layer, 0-based.
    layer, slot
        The decoder layer, and the name under which it holds `module`.
    module, name
        The module with the projections, and the name under which it holds vLLM's `Attention`.
    """

    index: int
    layer: nn.Module
    slot: str
    module: Any
    name: str

    @property
    def attention(self) -> Attention:
        """vLLM's own, until it is replaced."""
        attention: Attention = getattr(self.module, self.name)
        return attention

    def replace_attention(self, replacement: nn.Module) -> None:
        """Put a module in the place of vLLM's `Attention`, which it is called like."""
        setattr(self.module, self.name, replacement)

    def replace_module(self, replacement: nn.Module) -> None:
        """Put a module in the place of the projections and the attention."""
        setattr(self.layer, self.slot, replacement)


def decoder_attention(decoder: nn.Module, plan: PruningPlan) -> tuple[DecoderAttention, ...]:
    """The attention of every decoder layer, in their order.

    Parameters
    ----------
    decoder
        The language model within a vision-language model.

    Raises
    ------
    ModelNotServable
        A layer does not pass; the error names it, with what was found and what was expected.
    """
    geometry, found = plan.geometry, list(_attention(decoder))
    by_layer: dict[int, DecoderAttention] = {}
    for one in found:
        _check_kind(one, plan)
        _check_heads(one, geometry)
        if one.index in by_layer:
            raise ModelNotServable(
                f"decoder layer {one.index} has two attentions", expected="one in every layer", fix=_FIX
            )
        by_layer[one.index] = one
    if sorted(by_layer) != list(range(geometry.layers)):
        raise ModelNotServable(
            f"{len(by_layer)} of its {geometry.layers} decoder layers have an attention with a KV cache",
            expected="one in every layer",
            fix=_FIX,
        )
    if geometry.kv_heads == 1 < geometry.query_heads:
        raise ModelNotServable(
            f"its {geometry.query_heads} query heads share one KV head, so no part of a layer's KV cache is their own",
            expected="at least two KV heads",
            fix=_FIX,
        )
    return tuple(by_layer[index] for index in range(geometry.layers))


def _attention(decoder: nn.Module) -> Iterator[DecoderAttention]:
    """Whatever has a KV cache or a state, with the two modules above it."""
    modules = dict(decoder.named_modules())
    for path, module in modules.items():
        if isinstance(module, AttentionLayerBase):
            above, _, name = path.rpartition(".")
            layer, _, slot = above.rpartition(".")
            yield DecoderAttention(extract_layer_index(path), modules[layer], slot, modules[above], name)


def _check_kind(one: DecoderAttention, plan: PruningPlan) -> None:
    attention: Any = one.attention

    def refused(found: str, expected: str) -> ModelNotServable:
        return ModelNotServable(f"decoder layer {one.index} has {found}", expected=expected, fix=_FIX)

    if type(attention) is not Attention:
        raise refused(type(attention).__name__, "vLLM's own attention over keys and values of every head")
    if attention.attn_type != AttentionType.DECODER:
        raise refused(f"attention of kind {attention.attn_type}", "a decoder's attention")
    if attention.kv_sharing_target_layer_name is not None:
        raise refused(f"the KV cache of {attention.kv_sharing_target_layer_name}", "a KV cache of its own")
    if attention.head_size_v != attention.head_size:
        raise refused(f"values of {attention.head_size_v} and keys of {attention.head_size}", "both of one size")
    if attention.has_sink:
        raise refused("attention sinks", "none, whose sizes are those of all heads")
    if getattr(attention.impl, "alibi_slopes", None) is not None:
        raise refused("ALiBi slopes", "rotary positions, which lie in the keys")
    if not plan.has_partial_heads:
        return
    heads = "with heads that drop image blocks (a plan of removed heads alone can be served)"
    if attention.sliding_window is not None:
        raise refused(f"a sliding window of {attention.sliding_window} tokens", f"attention over all tokens {heads}")
    if attention.use_mm_prefix:
        raise refused("attention in both directions within an image", f"causal attention {heads}")


def _check_heads(one: DecoderAttention, geometry: ModelGeometry) -> None:
    attention = one.attention
    found = (attention.num_heads, attention.num_kv_heads, attention.head_size)
    expected = (geometry.query_heads, geometry.kv_heads, geometry.head_size)
    if found != expected:
        raise ModelNotServable(
            f"decoder layer {one.index} has (query heads, KV heads, head size) {found}",
            expected=f"{expected}, as the plan",
            fix="make the plan for this model",
        )
