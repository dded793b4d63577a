"""What the metadata builders of partial heads of one engine share within a step, so that each part is computed once.

Owns how steps and KV cache groups are distinguished. Does not know how a batch is compacted. An engine has one
`StepCompaction` for each treatment, given to the attention layers when they are built, from which their builders take
it: groups of one treatment have their null blocks at the same positions, groups of two don't.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata

from profiles.names import TreatmentName
from vhserve.engine.attention.host_compaction import CompactionPlan, plan_compaction
from vhserve.engine.attention.query_routing import QueryRouting


@dataclass(frozen=True)
class CompactedBatch:
    """A KV cache group's batch without its null blocks, and what became of its queries."""

    batch: CommonAttentionMetadata
    routing: QueryRouting | None


class StepCompaction:
    """Results of the current step.

    Keys are objects that vLLM makes anew in each step, compared by identity and kept alive with the result, so that
    another object cannot take their address. A miss only costs time: the result is computed again.
    """

    def __init__(self) -> None:
        self._group: tuple[CommonAttentionMetadata, torch.Tensor, CompactedBatch] | None = None
        self._plan: tuple[torch.Tensor, CompactionPlan | None] | None = None

    def of_group(
        self, batch: CommonAttentionMetadata, compact: Callable[[CommonAttentionMetadata], CompactedBatch]
    ) -> CompactedBatch:
        """The compacted batch of a group; all builders of a group get one `batch` object, and the first compacts it."""
        known = self._group
        if known is None or known[0] is not batch or known[1] is not batch.block_table_tensor:
            known = self._group = (batch, batch.block_table_tensor, compact(batch))
        return known[2]

    def host_plan(self, batch: CommonAttentionMetadata, block_size: int) -> CompactionPlan | None:
        """The plan that all groups of a treatment share in a step: their batches hold the same `seq_lens` object.

        Only for batches in host memory. None when nothing is dropped.
        """
        known = self._plan
        if known is None or known[0] is not batch.seq_lens:
            requests, tokens = batch.num_reqs, batch.num_actual_tokens
            plan = plan_compaction(
                batch.block_table_tensor[:requests],
                batch.seq_lens[:requests],
                batch.slot_mapping[:tokens],
                batch.query_start_loc[: requests + 1],
                block_size,
            )
            known = self._plan = (batch.seq_lens, plan)
        return known[1]


class StepCompactions(defaultdict[TreatmentName, StepCompaction]):
    """Those of one engine, by treatment."""

    def __init__(self) -> None:
        super().__init__(StepCompaction)
