"""Cuts the heads that a plan removes out of a freshly built vLLM model, before its weights are loaded.

Owns the replacement of attention modules: every decoder layer that loses heads gets smaller projections and attention
over fewer heads; a layer that keeps all heads stays as vLLM built it, unless the plan has partial heads, with which
every KV cache is in a lane. The forward pass stays vLLM's: it reads its sizes from the attributes set here. Does not
know where the plan came from, nor how blocks of a KV cache are managed.
"""

from typing import Any

from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaAttention
from vllm.model_executor.models.utils import extract_layer_index

from profiles.pruning_plan import PruningPlan
from vhserve.compat.layers import forget_attention
from vhserve.engine.attention.layer_attention import build_layer_attention
from vhserve.engine.attention.step_compaction import StepCompactions
from vhserve.engine.layer_plan import LayerPlan, layer_plans
from vhserve.engine.weights.dropped_tokens import use_dropped_tokens_linear
from vhserve.engine.weights.mean_compensation import MeanCompensation
from vhserve.engine.weights.projections import KeptOutput, KeptQKV
from vhserve.engine.weights.removed_layer import RemovedAttention
from vhserve.errors import ModelNotServable


def prune(decoder: nn.Module, plan: PruningPlan, vllm_config: VllmConfig) -> None:
    """Replace the attention of every layer that loses heads.

    Parameters
    ----------
    decoder
        The language model, whose attention modules vLLM built for all heads and whose weights are not loaded yet.

    Raises
    ------
    LayoutRefused
        The plan keeps heads that no layout can hold.
    ModelNotServable
        The decoder is built of attention modules that surgery does not know.
    FlagRefused
        vLLM has chosen an attention backend that cannot serve the plan.
    """
    layers = layer_plans(plan, vllm_config.cache_config.block_size)
    holders = attention_holders(decoder)
    if sorted(holders) != list(range(len(layers))):
        raise ModelNotServable(
            f"{len(holders)} of its {len(layers)} decoder layers have vLLM's Llama attention",
            expected="a decoder of the Llama or Mistral architecture",
            fix="serve it without --plan",
        )
    step_compactions = StepCompactions()
    for layer in layers:
        holder, layout = holders[layer.index], layer.layout
        attention = holder.self_attn
        if not layout.queries:
            holder.self_attn = remove_attention(attention, layer, vllm_config)
        elif len(layout.full.queries) < attention.num_heads:
            keep_heads(attention, layer, step_compactions, vllm_config)
        elif layer.lanes is not None:
            attention.attn = build_layer_attention(attention, layer, step_compactions, vllm_config)


def attention_holders(decoder: nn.Module) -> dict[int, Any]:
    """The modules whose `self_attn` is a Llama attention, by layer."""
    modules: list[Any] = [module for module in decoder.modules() if hasattr(module, "self_attn")]
    return {
        extract_layer_index(module.self_attn.attn.layer_name): module
        for module in modules
        if isinstance(module.self_attn, LlamaAttention)
    }


def keep_heads(
    attention: LlamaAttention, layer: LayerPlan, step_compactions: StepCompactions, vllm_config: VllmConfig
) -> None:
    """Shrink one attention module to the heads of a layer's layout, in its order."""
    layout, size = layer.layout, attention.head_dim
    query_heads, kv_heads = layout.queries, layout.kv
    built = build_layer_attention(attention, layer, step_compactions, vllm_config)
    attention.attn = built  # type: ignore[assignment]  # called like vLLM's `Attention`
    attention.qkv_proj = KeptQKV(attention.qkv_proj, query_heads, kv_heads)
    attention.o_proj = KeptOutput(attention.o_proj, size, query_heads, _compensation(layer))
    attention.num_heads = attention.total_num_heads = len(query_heads)
    attention.num_kv_heads = attention.total_num_kv_heads = len(kv_heads)
    attention.q_size, attention.kv_size = len(query_heads) * size, len(kv_heads) * size
    use_dropped_tokens_linear(attention)


def remove_attention(attention: LlamaAttention, layer: LayerPlan, vllm_config: VllmConfig) -> RemovedAttention:
    """What takes the place of an attention module of which no head is kept."""
    forget_attention(attention.attn.layer_name, vllm_config)
    return RemovedAttention(attention.o_proj, _compensation(layer))


def _compensation(layer: LayerPlan) -> MeanCompensation | None:
    return None if layer.compensation is None else MeanCompensation(layer.compensation)
