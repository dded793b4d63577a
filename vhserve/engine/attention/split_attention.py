"""Two attentions in one decoder layer: one for its full heads, one for its text-only heads, each with its own KV cache.

Owns the modules that stand where vLLM's `Attention` stood, and the KV cache spec that each reports. Does not choose
lanes (`lanes`), cut weights (`surgery`) or know a kernel (`text_only_backend`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.llama import LlamaAttention
from vllm.model_executor.models.utils import extract_layer_index
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec

from profiles.planning.layout import LayerLayout
from vhserve.engine.attention.text_only_backend import block_outermost, text_only
from vhserve.engine.kv_cache.lanes import lanes_of, padded_layers
from vhserve.engine.kv_cache.spec import FullLaneSpec, TextOnlySpec
from vhserve.errors import FlagRefused

PADDING_BYTES = 256
"""Added to a page that must differ from its twins; keeps every page aligned for any kernel."""


@dataclass(frozen=True)
class Place:
    """Where one layer's heads of one treatment keep their KV cache."""

    lane: int
    padded: bool


@dataclass(frozen=True)
class Places:
    """Of all layers that have such heads, by layer."""

    full: dict[int, Place]
    text: dict[int, Place]


def find_places(layouts: Sequence[LayerLayout], image_tokens: int, block_size: int) -> Places | None:
    """Where each layer's heads keep their KV cache; None when no head is text-only."""
    lanes = lanes_of(layouts, image_tokens, block_size)
    if lanes is None:
        return None
    full, text = [len(layout.kv_full) for layout in layouts], [len(layout.kv_text) for layout in layouts]
    padded_full = padded_layers(full, lanes.full, others=[(text, lanes.text)])
    padded_text = padded_layers(text, lanes.text, others=[(full, lanes.full)])
    return Places(
        {layer: Place(lane, layer in padded_full) for lane, layers in enumerate(lanes.full) for layer in layers},
        {layer: Place(lane, layer in padded_text) for lane, layers in enumerate(lanes.text) for layer in layers},
    )


class LaneAttention(Attention):
    """vLLM's attention, with a KV cache in a lane."""

    place: Place
    spec_class: type[FullLaneSpec] | type[TextOnlySpec]

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> KVCacheSpec | None:
        stock = super().get_kv_cache_spec(vllm_config)
        if not isinstance(stock, FullAttentionSpec):
            raise FlagRefused(
                f"layer {self.layer_name} has a KV cache of kind {type(stock).__name__}",
                expected="full attention in every layer of a model with text-only heads",
                fix="serve the model with a plan of full and removed heads",
            )
        spec = self.attn_backend.customize_spec(self.spec_class.of(stock, self.place.lane))
        if self.place.padded:
            spec = replace(spec, page_size_padded=spec.page_size_bytes + PADDING_BYTES)
        return spec


class SplitAttention(nn.Module):
    """Attends with full heads and with text-only heads; q, k and v are laid out ``[full | text_only]``."""

    def __init__(self, full: LaneAttention, text: LaneAttention) -> None:
        super().__init__()
        self.full, self.text = full, text
        self.query_sizes = [full.num_heads * full.head_size, text.num_heads * text.head_size]
        self.kv_sizes = [full.num_kv_heads * full.head_size, text.num_kv_heads * text.head_size]

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Outputs of the heads, (tokens, heads * head size), in the order of `query`."""
        full_query, text_query = query.split_with_sizes(self.query_sizes, dim=-1)
        full_key, text_key = key.split_with_sizes(self.kv_sizes, dim=-1)
        full_value, text_value = value.split_with_sizes(self.kv_sizes, dim=-1)
        full = self.full(full_query, full_key, full_value)
        return torch.cat([full, self.text(text_query, text_key, text_value)], dim=-1)


def lane_attention(
    attention: LlamaAttention, layout: LayerLayout, places: Places, vllm_config: VllmConfig
) -> nn.Module:
    """What attends with the heads of a layout, in place of `attention.attn`, which vLLM no longer knows.

    Raises
    ------
    FlagRefused
        The platform's attention back end cannot hold text-only heads.
    """
    name: str = attention.attn.layer_name
    layer = extract_layer_index(name)
    kept: list[LaneAttention] = []
    if layout.full:
        heads, kv_heads = len(layout.full), len(layout.kv_full)
        kept.append(_attention(attention, heads, kv_heads, FullLaneSpec, places.full[layer], name, vllm_config))
    if layout.text_only:
        heads, kv_heads = len(layout.text_only), len(layout.kv_text)
        # The suffix holds no number: vLLM reads the layer's index out of the name.
        place, suffixed = places.text[layer], f"{name}_text"
        kept.append(_attention(attention, heads, kv_heads, TextOnlySpec, place, suffixed, vllm_config))
    return SplitAttention(*kept) if len(kept) > 1 else kept[0]


def _attention(
    attention: LlamaAttention,
    heads: int,
    kv_heads: int,
    spec_class: type[FullLaneSpec] | type[TextOnlySpec],
    place: Place,
    name: str,
    vllm_config: VllmConfig,
) -> LaneAttention:
    stock = attention.attn
    wrapped = text_only if spec_class is TextOnlySpec else block_outermost
    built = LaneAttention(
        heads,
        attention.head_dim,
        attention.scaling,
        num_kv_heads=kv_heads,
        cache_config=vllm_config.cache_config,
        per_layer_sliding_window=stock.sliding_window,
        attn_type=stock.attn_type,
        prefix=name,
        attn_backend=wrapped(stock.attn_backend),
    )
    built.place, built.spec_class = place, spec_class
    return built
