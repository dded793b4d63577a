"""Builds the module that attends with the heads which a decoder layer keeps, in place of vLLM's `Attention`.

Owns the choice between vLLM's own class over fewer heads, attention with a KV cache in a lane, and several of these in
one layer. Does not know projections (`weights`).
"""

from typing import Any, TypeVar

from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention

from profiles.planning.layout import TreatedHeads
from profiles.treatments import TREATMENTS, Treatment
from vhserve.compat.layers import attention_settings, forget_attention
from vhserve.engine.attention.cache_write import share_cache_write
from vhserve.engine.attention.lane_attention import FullLaneAttention, LaneAttention, PartialAttention
from vhserve.engine.attention.partial_backend import block_outermost_backend, partial_backend
from vhserve.engine.attention.split_attention import SplitAttention
from vhserve.engine.attention.step_compaction import StepCompaction, StepCompactions
from vhserve.engine.checks.unsupported_options import BACKENDS
from vhserve.engine.kv_cache.lane_assignment import LaneAssignment
from vhserve.engine.layer_plan import LayerPlan
from vhserve.errors import FlagRefused

AnyAttention = TypeVar("AnyAttention", bound=Attention)


def build_layer_attention(
    attention: Attention, layer: LayerPlan, step_compactions: StepCompactions, vllm_config: VllmConfig
) -> nn.Module:
    """The module to put in place of `attention`, which vLLM no longer knows afterwards.

    It takes q, k and v of the kept heads, each of shape (tokens, heads * head size) and laid out as the layer's layout
    says, and returns the heads' outputs in the order of q.

    Parameters
    ----------
    layer
        The plan of the layer.
    step_compactions
        Shared by all layers of the model.

    Raises
    ------
    FlagRefused
        vLLM has chosen an attention backend that takes all layers to have the same heads, or that cannot serve
        partial heads.
    ValueError
        The layer keeps no head.
    """
    forget_attention(attention.layer_name, vllm_config)
    if layer.lanes is None:
        return _smaller_attention(attention, layer, vllm_config)
    parts: list[LaneAttention] = []
    for name, lane in layer.lanes.items():
        treatment, heads = TREATMENTS[name], layer.layout.kept[name]
        if treatment.is_full:
            parts.append(_full_attention(attention, heads, lane, vllm_config))
        else:
            compaction = step_compactions[name]
            parts.append(_partial_attention(attention, treatment, heads, lane, compaction, vllm_config))
    if not parts:
        raise ValueError(f"layer {layer.index} keeps no head, so it has no attention")
    if len(parts) == 1:
        return parts[0]
    return SplitAttention(parts, shares_write=share_cache_write(parts, vllm_config))


def _full_attention(
    attention: Attention, heads: TreatedHeads, lane: LaneAssignment, vllm_config: VllmConfig
) -> FullLaneAttention:
    return _construct(
        FullLaneAttention,
        attention,
        heads,
        vllm_config,
        attn_backend=block_outermost_backend(attention.attn_backend),
        lane=lane,
    )


def _partial_attention(
    attention: Attention,
    treatment: Treatment,
    heads: TreatedHeads,
    lane: LaneAssignment,
    step_compaction: StepCompaction,
    vllm_config: VllmConfig,
) -> PartialAttention:
    return _construct(
        PartialAttention,
        attention,
        heads,
        vllm_config,
        # vLLM reads the layer's index out of the name: the one part between dots that is a number.
        prefix=f"{attention.layer_name}_{treatment.name.replace(':', '_')}",
        attn_backend=partial_backend(attention.attn_backend),
        treatment=treatment,
        lane=lane,
        step_compaction=step_compaction,
    )


def _smaller_attention(attention: Attention, layer: LayerPlan, vllm_config: VllmConfig) -> Attention:
    smaller = _construct(Attention, attention, layer.layout.full, vllm_config)
    if smaller.attn_backend.get_name() not in BACKENDS:
        raise FlagRefused(
            f"attention backend {smaller.attn_backend.get_name()} takes all layers to have the same heads",
            expected=f"one of {', '.join(BACKENDS)}",
            fix="choose one with --attention-backend",
        )
    return smaller


def _construct(
    attention_class: type[AnyAttention],
    attention: Attention,
    heads: TreatedHeads,
    vllm_config: VllmConfig,
    **options: Any,
) -> AnyAttention:
    """Attention like `attention`, over fewer heads; under its name, unless `options` give another `prefix`."""
    return attention_class(
        len(heads.queries),
        attention.head_size,
        **{
            "num_kv_heads": len(heads.kv),
            "cache_config": vllm_config.cache_config,
            "prefix": attention.layer_name,
            **attention_settings(attention),
            **options,
        },
    )
