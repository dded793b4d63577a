"""vLLM's attention over full or text-only heads, with a KV cache in a lane.

Owns the KV cache spec that such a layer reports, and what text-only layers of one engine share. Does not choose lanes
(`kv_cache.lanes`) or know a backend (`text_only_backend`).
"""

from dataclasses import replace
from typing import Any, Protocol

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec

from vhserve.engine.attention.step_compaction import StepCompaction
from vhserve.engine.kv_cache.lane_assignment import PADDING_BYTES, LaneAssignment
from vhserve.engine.kv_cache.spec import FullLaneSpec, TextOnlySpec
from vhserve.errors import FlagRefused


class LaneAttention(Attention):
    """vLLM's attention, with a KV cache in a lane. Subclasses set the kind of spec.

    Parameters
    ----------
    lane
        Where the layer's KV cache is.
    *args, **options
        Of vLLM's `Attention`.
    """

    spec_class: type[FullLaneSpec] | type[TextOnlySpec]

    def __init__(self, *args: Any, lane: LaneAssignment, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lane = lane

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> KVCacheSpec | None:
        stock = super().get_kv_cache_spec(vllm_config)
        if not isinstance(stock, FullAttentionSpec):
            raise FlagRefused(
                f"layer {self.layer_name} has a KV cache of kind {type(stock).__name__}",
                expected="full attention in every layer of a model with text-only heads",
                fix="serve the model with a plan of full and removed heads",
            )
        spec = self.attn_backend.customize_spec(self.spec_class.of(stock, self.lane.lane))
        if self.lane.padded:
            spec = replace(spec, page_size_padded=spec.page_size_bytes + PADDING_BYTES)
        return spec


class FullLaneAttention(LaneAttention):
    """Attention of a layer's full heads, beside text-only heads in this layer or others."""

    spec_class = FullLaneSpec


class Projection(Protocol):
    """A projection around the attention that treats dropped tokens apart (`weights.dropped_tokens`)."""

    def project(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Project the tokens of the batch that runs, (tokens, inputs), to (tokens, outputs)."""


class TextOnlyAttention(LaneAttention):
    """Attention of a layer's text-only heads.

    Parameters
    ----------
    step_compaction
        Shared by all text-only attention of one engine; metadata builders take it from here.
    """

    spec_class = TextOnlySpec

    def __init__(self, *args: Any, step_compaction: StepCompaction, **options: Any) -> None:
        super().__init__(*args, **options)
        self.step_compaction = step_compaction
        self._projections: dict[str, Projection] = {}

    def add_projection(self, kind: str, projection: Projection) -> None:
        """Register a projection of the layer, so that an operator in a compiled model finds it by the layer's name."""
        self._projections[kind] = projection

    def projection(self, kind: str) -> Projection:
        """The projection that was registered as `kind`."""
        return self._projections[kind]
