"""What the metadata builders of text-only heads have in common, on any platform: stock metadata of a compacted batch.

Owns what these builders do not support and the check of the kernel's block size. Does not know how a batch is compacted
(`device_builder`, `host_builder`).
"""

from typing import Any

import torch
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.v1.attention.backend import AttentionCGSupport, CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec, KVCacheSpec

from profiles.names import TreatmentName
from vhserve.engine.attention.known_queries import StepQueries
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.attention.query_routing import RoutedMetadata, with_routing
from vhserve.engine.attention.step_compaction import CompactedBatch, StepCompaction
from vhserve.engine.checks.error_relay import relay_user_errors
from vhserve.errors import FlagRefused


class PartialBuilder:
    """Mixin before a stock metadata builder. Subclasses define `compact`."""

    supports_update_block_table = False  # vLLM would put the raw table into our metadata
    supports_draft_decode_metadata_update = False

    step_compaction: StepCompaction
    treatment: TreatmentName

    @relay_user_errors()
    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)  # type: ignore[call-arg]  # the stock builder
        block_size = vllm_config.cache_config.block_size
        if kv_cache_spec.block_size != block_size:
            raise FlagRefused(
                f"the attention backend splits blocks of {block_size} tokens into {kv_cache_spec.block_size}",
                expected="kernel blocks of the KV cache's size, so that text-only heads have one null block",
                fix=f"set --block-size {kv_cache_spec.block_size}",
            )
        self.supports_draft_decode_metadata_update = False  # stock builders set it on the instance
        layers = get_layers_from_vllm_config(vllm_config, PartialAttention, layer_names)
        self.step_compaction = layers[layer_names[0]].step_compaction
        self.treatment = layers[layer_names[0]].treatment.name

    @classmethod
    def get_cudagraph_support(cls, vllm_config: VllmConfig, kv_cache_spec: KVCacheSpec) -> AttentionCGSupport:
        """At most graphs of decode steps: in others, the number of kept queries differs from replay to replay."""
        stock: AttentionCGSupport = super().get_cudagraph_support(  # type: ignore[misc]  # the stock builder's
            vllm_config, kv_cache_spec
        )
        return min(stock, AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE, key=lambda support: support.value)

    @classmethod
    def get_varlen_cudagraph_max_query_len(cls, vllm_config: VllmConfig, kv_cache_spec: KVCacheSpec) -> int | None:
        return None

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
        step_queries: StepQueries | None = None,
    ) -> RoutedMetadata:
        """Build the metadata of a batch; `step_queries` is what the host knows of it (`compat.model_state`)."""
        compacted = self.step_compaction.of_group(common_attn_metadata, lambda batch: self.compact(batch, step_queries))
        stock: Any = super().build(common_prefix_len, compacted.batch, fast_build)  # type: ignore[misc]  # the stock one's
        return with_routing(stock, compacted.routing)

    def compact(self, batch: CommonAttentionMetadata, step: StepQueries | None) -> CompactedBatch:
        """The batch without null blocks and without the queries in them."""
        raise NotImplementedError
