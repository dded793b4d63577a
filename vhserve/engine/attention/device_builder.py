"""The metadata builder of text-only heads on a GPU: it compacts a batch without waiting for the device.

Owns the compaction's persistent buffers of one KV cache group, and the choice between counts that the host knows
(`known_queries`) and upper bounds. Does not know what is done with the queries (`partial_impl`).
"""

from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec

from profiles.treatments import ALL_BLOCKS, TREATMENTS
from vhserve.compat.empty_sequences import compute_at_once
from vhserve.compat.layers import copy_of_batch
from vhserve.engine.attention.device_compaction import Compactor, SingleQueries
from vhserve.engine.attention.known_queries import StepQueries
from vhserve.engine.attention.partial_builder import PartialBuilder
from vhserve.engine.attention.query_routing import QueryRouting, RoutedMetadata
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

    def build(self, *args: Any, **options: Any) -> RoutedMetadata:
        metadata = super().build(*args, **options)
        if TREATMENTS[self.treatment].seen_in_prompt != ALL_BLOCKS:  # a single query may have no token to see
            compute_at_once(metadata)
        return metadata

    def compact(self, batch: CommonAttentionMetadata, step: StepQueries | None) -> CompactedBatch:
        """Tables are compacted by the device. Where the host does not know the step, shapes stay as they are.

        Then `query_start_loc_cpu` is left as it was; stock builders read it for context parallelism and PrefixLM, both
        refused. `max_query_len` and `max_seq_len` stay upper bounds.
        """
        tokens, requests = batch.num_actual_tokens, batch.num_reqs
        slots, starts = batch.slot_mapping[:tokens], batch.query_start_loc[: requests + 1]
        single = batch.max_query_len <= 1
        compacted = self._compactor(
            batch.block_table_tensor[:requests],
            batch.seq_lens[:requests],
            SingleQueries(slots, starts) if single else None,
        )
        smaller: CommonAttentionMetadata = copy_of_batch(
            batch, block_table_tensor=compacted.block_table, seq_lens=compacted.seq_lens
        )
        if step is not None:
            smaller.max_seq_len = max(1, step.longest(self.treatment))
        if single:
            return CompactedBatch(smaller, None)
        if step is None:
            moved = self._compactor.move_queries(slots, starts)
            smaller.query_start_loc = moved.query_start_loc
            return CompactedBatch(smaller, QueryRouting(tokens, moved.indices, None, moved.dropped_mask))
        known = step.of(self.treatment)
        if known is None:
            return CompactedBatch(smaller, None)
        if len(known.rows.kept):
            smaller.num_actual_tokens, smaller.max_query_len = len(known.rows.kept), known.most
            smaller.query_start_loc, smaller.query_start_loc_cpu = known.query_start_loc, torch.from_numpy(known.starts)
        return CompactedBatch(smaller, QueryRouting(tokens, known.kept_indices, known.rows))
