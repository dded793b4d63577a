"""Gives every decoder layer of a freshly built vLLM model the heads that a plan keeps, before its weights are loaded.

Owns the two ways of doing so and the choice between them. `slice` cuts heads out of the projections, which saves their
weights and their arithmetic. `gather` leaves the projections as they are and chooses heads behind them, for any
attention, quantised weights and adapters. A layer that keeps all heads stays as vLLM built it, unless the plan has
partial heads, with which every KV cache is in a lane. Does not know where the plan came from, nor how blocks of a KV
cache are managed.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn
from vllm.config import VllmConfig

from profiles.pruning_plan import PruningPlan
from vhserve.compat.layers import forget_attention, settled_block_size
from vhserve.engine.attention.gathered_attention import GatheredAttention
from vhserve.engine.attention.layer_attention import build_layer_attention
from vhserve.engine.attention.step_compaction import StepCompactions
from vhserve.engine.checks.surgery_choice import GATHER, SLICE, Surgery, asked_surgery, only_gather_serves, refuse_slice
from vhserve.engine.layer_plan import LayerPlan, layer_plans
from vhserve.engine.weights.decoder_attention import DecoderAttention, decoder_attention
from vhserve.engine.weights.mean_compensation import MeanCompensation
from vhserve.engine.weights.projection_choice import use_dropped_tokens_linear
from vhserve.engine.weights.projections import KeptOutput, KeptQKV
from vhserve.engine.weights.removed_layer import RemovedAttention
from vhserve.engine.weights.sliceable import why_not_sliceable
from vhserve.errors import ModelNotServable


def prune(decoder: nn.Module, plan: PruningPlan, vllm_config: VllmConfig) -> Surgery:
    """Replace the attention of every layer that loses heads, or whose KV cache is in a lane.

    Parameters
    ----------
    decoder
        The language model, whose attention modules vLLM built for all heads and whose weights are not loaded yet.

    Returns
    -------
    Surgery
        How it was done.

    Raises
    ------
    LayoutRefused
        The plan keeps heads that no layout can hold.
    ModelNotServable
        A decoder layer's attention is none whose heads can be chosen, or cannot be sliced as was asked.
    FlagRefused
        vLLM has chosen an attention backend that cannot serve the plan.
    """
    layers = layer_plans(plan, settled_block_size(vllm_config))
    sites = decoder_attention(decoder, plan)
    surgery = _choose(sites, plan, vllm_config)
    step_compactions = StepCompactions()
    for layer, site in zip(layers, sites, strict=True):
        all_full = len(layer.layout.full.queries) == plan.geometry.query_heads
        if all_full and layer.lanes is not None:
            site.replace_attention(build_layer_attention(site.attention, layer, step_compactions, vllm_config))
        elif all_full:
            continue
        elif surgery == GATHER:
            gather_heads(site, layer, step_compactions, vllm_config)
        elif layer.layout.queries:
            slice_heads(site, layer, step_compactions, vllm_config)
        else:
            remove_attention(site, layer, vllm_config)
    return surgery


def _choose(sites: Sequence[DecoderAttention], plan: PruningPlan, vllm_config: VllmConfig) -> Surgery:
    asked = asked_surgery(vllm_config.additional_config)
    if (
        asked == SLICE and vllm_config.lora_config
    ):  # vLLM would leave adapters out of smaller projections, and not say so
        raise refuse_slice("--enable-lora")
    if asked == GATHER or (asked != SLICE and only_gather_serves(vllm_config)):
        return GATHER
    compensated = plan.compensation.means is not None
    for site in sites:
        if reason := why_not_sliceable(site, plan.geometry, compensated):
            if asked == SLICE:
                raise ModelNotServable(
                    f"heads cannot be cut out of decoder layer {site.index}: {reason}",
                    expected="projections of vLLM's own, unquantised, whose rows and columns belong to one head each",
                    fix="serve it with --surgery gather",
                )
            return GATHER
    return SLICE


def gather_heads(
    site: DecoderAttention, layer: LayerPlan, step_compactions: StepCompactions, vllm_config: VllmConfig
) -> None:
    """Choose the heads of a layer's layout between its projections."""
    stock = site.attention
    if layer.layout.queries:
        kept: Any = build_layer_attention(stock, layer, step_compactions, vllm_config)
    else:
        forget_attention(stock.layer_name, vllm_config)
        kept = None
    site.replace_attention(GatheredAttention(stock.num_heads, stock.head_size, layer.layout, kept, layer.compensation))


def slice_heads(
    site: DecoderAttention, layer: LayerPlan, step_compactions: StepCompactions, vllm_config: VllmConfig
) -> None:
    """Shrink the projections of a layer to the heads of its layout, in its order."""
    layout, module, size = layer.layout, site.module, site.attention.head_size
    site.replace_attention(build_layer_attention(site.attention, layer, step_compactions, vllm_config))
    module.qkv_proj = KeptQKV(module.qkv_proj, layout.queries, layout.kv)
    module.o_proj = KeptOutput(module.o_proj, size, layout.queries, _compensation(layer))
    module.num_heads = module.total_num_heads = len(layout.queries)
    module.num_kv_heads = module.total_num_kv_heads = len(layout.kv)
    module.q_size, module.kv_size = len(layout.queries) * size, len(layout.kv) * size
    use_dropped_tokens_linear(module, getattr(module, site.name), size, vllm_config)


def remove_attention(site: DecoderAttention, layer: LayerPlan, vllm_config: VllmConfig) -> None:
    """Leave out a layer's projections and attention, of which no head is kept."""
    forget_attention(site.attention.layer_name, vllm_config)
    site.replace_module(RemovedAttention(site.module.o_proj, _compensation(layer)))


def _compensation(layer: LayerPlan) -> MeanCompensation | None:
    return None if layer.compensation is None else MeanCompensation(layer.compensation)
