"""KV cache specs: one for partial heads, and one for full heads beside them, which are spread over several lanes.

Owns what vLLM's grouping looks at: layers of one class, treatment and lane form a KV cache group, layers of two lanes
never do. Does not know which layers are in which lane (`lanes`), nor how blocks are allocated (`manager`).
"""

from collections import Counter
from dataclasses import dataclass

from vllm.config import VllmConfig
from vllm.utils.math_utils import cdiv
from vllm.v1.kv_cache_interface import (
    AttentionSpec,
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheSpec,
    replace_as,
)
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

from profiles.image_spans import RULE, SpanRule
from profiles.names import TreatmentName
from profiles.treatments import FULL
from vhserve.compat.scheduler import register_stock_kv_cache_specs
from vhserve.engine.kv_cache.capacity import GroupCounts
from vhserve.engine.kv_cache.manager import FullLaneManager, PartialManager, treatment_of

_FULL_ONLY_FIELDS = ("sliding_window", "attention_chunk_size", "non_causal")
OWN_FIELDS = ("treatment", "lane", "bridge")
"""Fields that a `PartialSpec` has and vLLM's specs have not."""


@dataclass(frozen=True, kw_only=True)
class PartialSpec(AttentionSpec):
    """KV cache of one layer's heads of one treatment under which they do not keep the whole image.

    Not a `FullAttentionSpec`: vLLM would put it in one group with the full heads, and give it their block table.

    Attributes
    ----------
    treatment
        Name of the treatment.
    lane
        Index of the lane among those of the treatment.
    bridge
        Of the plan's rule of image spans (`profiles.image_spans.SpanRule`).
    """

    treatment: TreatmentName
    lane: int = 0
    bridge: int = RULE.bridge

    @classmethod
    def of(cls, spec: FullAttentionSpec, treatment: TreatmentName, lane: int, rule: SpanRule = RULE) -> "PartialSpec":
        """The spec under a treatment of a layer whose stock spec is `spec`."""
        return replace_as(spec, cls, drop=_FULL_ONLY_FIELDS, treatment=treatment, lane=lane, bridge=rule.bridge)

    def max_memory_usage_bytes(self, vllm_config: VllmConfig) -> int:
        """Bytes of this layer for a request of the greatest length, which may be all text."""
        return cdiv(vllm_config.model_config.max_model_len, self.block_size) * self.page_size_bytes

    def is_uniform_with_collection(self, kv_cache_specs: dict[str, KVCacheSpec]) -> bool:
        return _same_lane(self, kv_cache_specs)


@dataclass(frozen=True, kw_only=True)
class FullLaneSpec(FullAttentionSpec):
    """KV cache of one layer's full heads, in a plan with partial heads.

    Attributes
    ----------
    lane
        Index of the lane among the full heads' lanes.
    """

    lane: int = 0

    @classmethod
    def of(cls, spec: FullAttentionSpec, lane: int) -> "FullLaneSpec":
        """The spec in `lane` of a layer whose stock spec is `spec`."""
        return replace_as(spec, cls, lane=lane)

    @classmethod
    def merge(cls, specs: list["FullLaneSpec"]) -> "FullLaneSpec":
        """One spec for layers of one lane.

        Raises
        ------
        AssertionError
            The lanes differ; vLLM's grouping takes the error to mean that specs cannot be merged.
        """
        if len({getattr(spec, "lane", None) for spec in specs}) > 1:
            raise AssertionError("layers of different lanes keep their own block tables")
        return replace_as(super().merge(specs), cls, lane=specs[0].lane)

    def is_uniform_with_collection(self, kv_cache_specs: dict[str, KVCacheSpec]) -> bool:
        return _same_lane(self, kv_cache_specs)


def _same_lane(spec: PartialSpec | FullLaneSpec, others: dict[str, KVCacheSpec]) -> bool:
    return all(type(other) is type(spec) and _lane(other) == _lane(spec) for other in others.values())


def _lane(spec: KVCacheSpec) -> tuple[TreatmentName | None, int]:
    return getattr(spec, "treatment", None), getattr(spec, "lane", 0)


def treatment_name(spec: KVCacheSpec) -> TreatmentName:
    """Name of the treatment of a group's heads."""
    treatment = treatment_of(spec)
    return FULL.name if treatment is None else treatment.name


def count_groups(config: KVCacheConfig) -> GroupCounts:
    """The groups that vLLM made."""
    return GroupCounts(Counter(treatment_name(group.kv_cache_spec) for group in config.kv_cache_groups))


def register() -> None:
    """Register both specs and their managers with vLLM; idempotent."""
    register_stock_kv_cache_specs()
    KVCacheSpecRegistry.register(PartialSpec, PartialManager)
    KVCacheSpecRegistry.register(FullLaneSpec, FullLaneManager)


# The layers may be grouped in another process than they are built in. It gets the specs by unpickling, which imports
# this module, so the specs are registered wherever there is one.
register()
