"""vLLM's attention over full or partial heads, with a KV cache in a lane.

Owns the KV cache spec that such a layer reports, and what layers of partial heads of one engine share. Does not choose
lanes (`kv_cache.lanes`) or know a backend (`partial_backend`).
"""

from dataclasses import replace
from typing import Any, Protocol

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec

from profiles.image_spans import SpanRule
from profiles.treatments import Treatment
from vhserve.compat.layers import settle_scales
from vhserve.engine.attention.step_compaction import StepCompaction
from vhserve.engine.checks.plan_transport import packed_span_rule
from vhserve.engine.kv_cache.lane_assignment import PADDING_BYTES, LaneAssignment
from vhserve.engine.kv_cache.spec import FullLaneSpec, PartialSpec
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

    def __init__(self, *args: Any, lane: LaneAssignment, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lane = lane
        self.cache_write: Any = None  # of `cache_write`, on the first attention of a layer of several

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> KVCacheSpec | None:
        stock = super().get_kv_cache_spec(vllm_config)
        if not isinstance(stock, FullAttentionSpec):
            raise FlagRefused(
                f"layer {self.layer_name} has a KV cache of kind {type(stock).__name__}",
                expected="full attention in every layer of a model with heads that drop image blocks",
                fix="serve the model with a plan of full and removed heads",
            )
        spec = self.attn_backend.customize_spec(self.spec(stock, packed_span_rule(vllm_config.additional_config)))
        if self.lane.padded:
            spec = replace(spec, page_size_padded=spec.page_size_bytes + PADDING_BYTES)
        return spec

    def bind_kv_cache(self, kv_cache: torch.Tensor) -> None:
        super().bind_kv_cache(kv_cache)
        settle_scales(self, kv_cache)

    def spec(self, stock: FullAttentionSpec, rule: SpanRule) -> FullLaneSpec | PartialSpec:
        """The layer's spec, of that which stock attention would report, and the plan's rule of image spans."""
        raise NotImplementedError


class FullLaneAttention(LaneAttention):
    """Attention of a layer's full heads, beside partial heads in this layer or others."""

    def spec(self, stock: FullAttentionSpec, rule: SpanRule) -> FullLaneSpec:
        return FullLaneSpec.of(stock, self.lane.lane)


class Projection(Protocol):
    """A projection around the attention that treats dropped tokens apart (`weights.dropped_tokens`)."""

    def project(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Project the tokens of the batch that runs, (tokens, inputs), to (tokens, outputs)."""


class PartialAttention(LaneAttention):
    """Attention of a layer's heads of one treatment under which they do not keep the whole image.

    Parameters
    ----------
    step_compaction
        Shared by all attention of the treatment in one engine; metadata builders take it from here.
    """

    def __init__(self, *args: Any, treatment: Treatment, step_compaction: StepCompaction, **options: Any) -> None:
        super().__init__(*args, **options)
        self.treatment, self.step_compaction = treatment, step_compaction
        self._projections: dict[str, Projection] = {}
        self.exit_stage: Any = None  # of `image_exit.stage`, on the first attention behind the exit

    def spec(self, stock: FullAttentionSpec, rule: SpanRule) -> PartialSpec:
        return PartialSpec.of(stock, self.treatment.name, self.lane.lane, rule)

    def add_projection(self, kind: str, projection: Projection) -> None:
        """Register a projection of the layer, so that an operator in a compiled model finds it by the layer's name."""
        self._projections[kind] = projection

    def projection(self, kind: str) -> Projection:
        """The projection that was registered as `kind`."""
        return self._projections[kind]
