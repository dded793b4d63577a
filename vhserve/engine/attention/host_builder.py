"""The metadata builder of text-only heads on a CPU: null blocks and dropped queries are left out of the batch.

Owns how a compaction plan becomes a batch of a KV cache group. Does not know how the plan is made (`host_compaction`).
A batch without image blocks stays vLLM's own.
"""

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec

from vhserve.compat.layers import copy_of_batch
from vhserve.engine.attention.known_queries import StepQueries
from vhserve.engine.attention.partial_builder import PartialBuilder
from vhserve.engine.attention.query_routing import QueryRouting
from vhserve.engine.attention.step_compaction import CompactedBatch


class HostBuilder(PartialBuilder):
    """Mixin before a stock metadata builder for a CPU."""

    kv_cache_spec: AttentionSpec

    def compact(self, batch: CommonAttentionMetadata, step: StepQueries | None) -> CompactedBatch:
        plan = self.step_compaction.host_plan(batch, self.kv_cache_spec.block_size)
        if plan is None:
            return CompactedBatch(batch, None)
        table = batch.block_table_tensor[: batch.num_reqs]
        if plan.queries is None:
            smaller = copy_of_batch(
                batch,
                block_table_tensor=plan.block_table(table),
                seq_lens=plan.seq_lens,
                max_seq_len=plan.max_seq_len,
            )
            return CompactedBatch(smaller, None)
        queries, rows = plan.queries, plan.queries.rows
        routing = QueryRouting(batch.num_actual_tokens, torch.from_numpy(rows.kept), rows)
        if not len(rows.kept):
            return CompactedBatch(batch, routing)
        seq_lens = plan.seq_lens[queries.requests]
        smaller = copy_of_batch(
            batch,
            num_reqs=len(queries.requests),
            num_actual_tokens=len(rows.kept),
            block_table_tensor=plan.block_table(table)[queries.requests],
            seq_lens=seq_lens,
            query_start_loc=queries.query_start_loc,
            query_start_loc_cpu=queries.query_start_loc,
            max_query_len=queries.max_query_len,
            max_seq_len=int(seq_lens.max()),
        )
        return CompactedBatch(smaller, routing)
