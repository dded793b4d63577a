"""The metadata builder of text-only heads on a GPU: it compacts a batch without waiting for the device.

Owns the compaction's persistent buffers of one KV cache group. Does not know what is done with the queries
(`partial_impl`).
"""

import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec

from vhserve.compat.layers import copy_of_batch
from vhserve.engine.attention.device_compaction import Compactor
from vhserve.engine.attention.partial_builder import PartialBuilder
from vhserve.engine.attention.query_routing import QueryRouting
from vhserve.engine.attention.step_compaction import CompactedBatch


class DeviceBuilder(PartialBuilder):
    """Mixin before a stock metadata builder for a GPU."""

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        scheduler = vllm_config.scheduler_config
        capture = vllm_config.compilation_config.max_cudagraph_capture_size or 0
        requests, tokens = max(scheduler.max_num_seqs, capture), max(scheduler.max_num_batched_tokens, capture)
        self._compactor = Compactor(requests, tokens, kv_cache_spec.block_size, device)

    def compact(self, batch: CommonAttentionMetadata) -> CompactedBatch:
        """Shapes stay as they are, and how many queries are kept is known on the device only.

        `query_start_loc_cpu` is left as it was; stock builders read it for context parallelism and PrefixLM, both
        refused. `max_query_len` and `max_seq_len` stay upper bounds.
        """
        compacted = self._compactor(
            batch.block_table_tensor,
            batch.seq_lens,
            batch.slot_mapping,
            batch.query_start_loc,
            requests=batch.num_reqs,
            tokens=batch.num_actual_tokens,
            decode=batch.max_query_len <= 1,
        )
        smaller: CommonAttentionMetadata = copy_of_batch(
            batch,
            block_table_tensor=compacted.block_table,
            seq_lens=compacted.seq_lens,
            query_start_loc=compacted.query_start_loc,
        )
        routing = QueryRouting(batch.num_actual_tokens, compacted.query_indices, compacted.dropped_mask)
        return CompactedBatch(smaller, routing)
