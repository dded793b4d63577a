"""Builds the module that attends with the heads which a decoder layer keeps, in place of vLLM's `Attention`.

Owns the choice between vLLM's own class over fewer heads, attention with a KV cache in a lane, and two of these in one
layer. Does not know projections (`weights`).
"""

from typing import Any, TypeVar

from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.llama import LlamaAttention

from vhserve.compat import forget_attention
from vhserve.engine.attention.lane_attention import FullLaneAttention, TextOnlyAttention
from vhserve.engine.attention.split_attention import SplitAttention
from vhserve.engine.attention.step_compaction import StepCompaction
from vhserve.engine.attention.text_only_backend import block_outermost_backend, text_only_backend
from vhserve.engine.checks.unsupported_options import BACKENDS
from vhserve.engine.kv_cache.lane_assignment import LaneAssignment
from vhserve.engine.layer_plan import LayerPlan
from vhserve.errors import FlagRefused

AnyAttention = TypeVar("AnyAttention", bound=Attention)


def build_layer_attention(
    attention: LlamaAttention, layer: LayerPlan, step_compaction: StepCompaction, vllm_config: VllmConfig
) -> nn.Module:
    """The module to put in place of `attention.attn`, which vLLM no longer knows afterwards.

    It takes q, k and v of the kept heads, each of shape (tokens, heads * head size) and laid out
    ``[full | text_only]``, and returns the heads' outputs in the order of q.

    Parameters
    ----------
    layer
        The plan of the layer.
    step_compaction
        Shared by all layers of the model.

    Raises
    ------
    FlagRefused
        vLLM has chosen an attention backend that takes all layers to have the same heads, or that cannot serve
        text-only heads.
    ValueError
        The layer keeps no head.
    """
    forget_attention(attention.attn.layer_name, vllm_config)
    if layer.lanes is None:
        return _smaller_attention(attention, layer, vllm_config)
    lanes = layer.lanes
    full = None if lanes.full is None else _full_attention(attention, layer, lanes.full, vllm_config)
    if lanes.text is not None:
        text = _text_only_attention(attention, layer, lanes.text, step_compaction, vllm_config)
        return text if full is None else SplitAttention(full, text)
    if full is None:
        raise ValueError(f"layer {layer.index} keeps no head, so it has no attention")
    return full


def _full_attention(
    attention: LlamaAttention, layer: LayerPlan, lane: LaneAssignment, vllm_config: VllmConfig
) -> FullLaneAttention:
    return _construct(
        FullLaneAttention,
        attention,
        len(layer.layout.full),
        len(layer.layout.kv_full),
        vllm_config,
        attn_backend=block_outermost_backend(attention.attn.attn_backend),
        lane=lane,
    )


def _text_only_attention(
    attention: LlamaAttention,
    layer: LayerPlan,
    lane: LaneAssignment,
    step_compaction: StepCompaction,
    vllm_config: VllmConfig,
) -> TextOnlyAttention:
    return _construct(
        TextOnlyAttention,
        attention,
        len(layer.layout.text_only),
        len(layer.layout.kv_text),
        vllm_config,
        # The suffix holds no number: vLLM reads the layer's index out of the name.
        prefix=f"{attention.attn.layer_name}_text",
        attn_backend=text_only_backend(attention.attn.attn_backend),
        lane=lane,
        step_compaction=step_compaction,
    )


def _smaller_attention(attention: LlamaAttention, layer: LayerPlan, vllm_config: VllmConfig) -> Attention:
    layout = layer.layout
    smaller = _construct(Attention, attention, len(layout.full), len(layout.kv_full), vllm_config)
    if smaller.attn_backend.get_name() not in BACKENDS:
        raise FlagRefused(
            f"attention backend {smaller.attn_backend.get_name()} takes all layers to have the same heads",
            expected=f"one of {', '.join(BACKENDS)}",
            fix="choose one with --attention-backend",
        )
    return smaller


def _construct(
    attention_class: type[AnyAttention],
    attention: LlamaAttention,
    heads: int,
    kv_heads: int,
    vllm_config: VllmConfig,
    **options: Any,
) -> AnyAttention:
    """Attention like `attention.attn`, over fewer heads; under its name, unless `options` give another `prefix`."""
    stock = attention.attn
    return attention_class(
        heads,
        attention.head_dim,
        attention.scaling,
        **{
            "num_kv_heads": kv_heads,
            "cache_config": vllm_config.cache_config,
            "per_layer_sliding_window": stock.sliding_window,
            "attn_type": stock.attn_type,
            "prefix": stock.layer_name,
            **options,
        },
    )
