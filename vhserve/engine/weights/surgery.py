"""Cuts the heads that a plan removes out of a freshly built vLLM model, before its weights are loaded.

Every decoder attention whose layer loses heads gets smaller projections and a smaller KV cache; layers that keep all
heads are left as vLLM built them, unless others have text-only heads, beside which every KV cache has its lane. The
forward pass stays vLLM's: it reads its sizes from the attributes set here. Does
not know where the plan came from, nor how blocks of a KV cache are managed.
"""

from typing import Any

from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.llama import LlamaAttention
from vllm.model_executor.models.utils import extract_layer_index

from profiles.planning.layout import LayerLayout, layer_layouts
from profiles.pruning_plan import PruningPlan
from vhserve.compat import forget_attention
from vhserve.engine.attention.split_attention import Places, find_places, lane_attention
from vhserve.engine.checks.unsupported_options import BACKENDS
from vhserve.engine.weights.dropped_tokens import skip_dropped_tokens
from vhserve.engine.weights.mean_compensation import MeanCompensation, mean_compensations
from vhserve.engine.weights.projections import KeptOutput, KeptQKV
from vhserve.engine.weights.removed_layer import RemovedAttention
from vhserve.errors import FlagRefused, ModelNotServable


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
    """
    layouts = layer_layouts(plan)
    places = find_places(layouts, plan.geometry.image_tokens, vllm_config.cache_config.block_size)
    compensation = mean_compensations(plan)
    holders = attention_holders(decoder)
    if sorted(holders) != list(range(len(layouts))):
        raise ModelNotServable(
            f"{len(holders)} of its {len(layouts)} decoder layers have vLLM's Llama attention",
            expected="a decoder of the Llama or Mistral architecture",
            fix="serve it without --plan",
        )
    for layer, layout in enumerate(layouts):
        holder = holders[layer]
        attention = holder.self_attn
        if len(layout.full) == attention.num_heads and places is None:
            continue
        if len(layout.full) == attention.num_heads:
            attention.attn = build_attention(attention, layout, places, vllm_config)
        elif layout.full or layout.text_only:
            keep_heads(attention, layout, places, compensation.get(layer), vllm_config)
        else:
            forget_attention(attention.attn.layer_name, vllm_config)
            holder.self_attn = RemovedAttention(attention.o_proj, compensation.get(layer))


def attention_holders(decoder: nn.Module) -> dict[int, Any]:
    """The modules whose `self_attn` is a Llama attention, by layer."""
    modules: list[Any] = [module for module in decoder.modules() if hasattr(module, "self_attn")]
    return {
        extract_layer_index(module.self_attn.attn.layer_name): module
        for module in modules
        if isinstance(module.self_attn, LlamaAttention)
    }


def keep_heads(
    attention: LlamaAttention,
    layout: LayerLayout,
    places: Places | None,
    compensation: MeanCompensation | None,
    vllm_config: VllmConfig,
) -> None:
    """Shrink one attention module to the heads of a layout, laid out ``[full | text_only]``."""
    query_heads, kv_heads = layout.full + layout.text_only, layout.kv_full + layout.kv_text
    attention.attn = build_attention(attention, layout, places, vllm_config)  # type: ignore[assignment]
    attention.qkv_proj = KeptQKV(attention.qkv_proj, query_heads, kv_heads)
    attention.o_proj = KeptOutput(attention.o_proj, attention.head_dim, query_heads, compensation)
    attention.num_heads = attention.total_num_heads = len(query_heads)
    attention.num_kv_heads = attention.total_num_kv_heads = len(kv_heads)
    attention.q_size, attention.kv_size = len(query_heads) * attention.head_dim, len(kv_heads) * attention.head_dim
    skip_dropped_tokens(attention, layout)


def build_attention(
    attention: LlamaAttention, layout: LayerLayout, places: Places | None, vllm_config: VllmConfig
) -> nn.Module:
    """The module that attends with the heads of a layout, in place of `attention.attn`.

    It takes q, k and v of the kept heads, each of shape (tokens, heads * head size) and laid out
    ``[full | text_only]``, and returns the heads' outputs in the order of q.

    Parameters
    ----------
    places
        Lanes of the plan's KV caches; None when it has no text-only heads.

    Raises
    ------
    FlagRefused
    """
    if places is not None:
        forget_attention(attention.attn.layer_name, vllm_config)
        return lane_attention(attention, layout, places, vllm_config)
    return full_attention(attention, len(layout.full), len(layout.kv_full), vllm_config)


def full_attention(attention: LlamaAttention, query_heads: int, kv_heads: int, vllm_config: VllmConfig) -> Attention:
    """vLLM's attention over fewer heads, in place of `attention.attn` and under its name.

    Raises
    ------
    FlagRefused
        vLLM has chosen an attention backend that takes all layers to have the same heads.
    """
    stock = attention.attn
    forget_attention(stock.layer_name, vllm_config)
    smaller = Attention(
        query_heads,
        attention.head_dim,
        attention.scaling,
        num_kv_heads=kv_heads,
        cache_config=vllm_config.cache_config,
        per_layer_sliding_window=stock.sliding_window,
        attn_type=stock.attn_type,
        prefix=stock.layer_name,
    )
    if smaller.attn_backend.get_name() not in BACKENDS:
        raise FlagRefused(
            f"attention backend {smaller.attn_backend.get_name()} takes all layers to have the same heads",
            expected=f"one of {', '.join(BACKENDS)}",
            fix="choose one with --attention-backend",
        )
    return smaller
