"""What the worker's block tables must forget when a prompt is computed.

The scheduler frees the blocks (`manager`), and tells nobody. Does not know where a worker keeps its tables (`compat`).
"""

from collections.abc import Sequence
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.kv_cache_interface import KVCacheConfig

from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS
from vhserve.compat.block_tables import evict_in_workers
from vhserve.engine.kv_cache.image_spans import spans_of, unseen_blocks
from vhserve.engine.kv_cache.manager import span_rule_of, treatment_of


def evicted_columns(config: KVCacheConfig, features: Sequence[Any]) -> list[list[int]]:
    """Indices of the image blocks that each group of an engine frees when a prompt with these features is computed."""
    columns: list[list[int]] = []
    for group in config.kv_cache_groups:
        treatment, spec = treatment_of(group.kv_cache_spec), group.kv_cache_spec
        if treatment is None or not treatment.evicts:
            columns.append([])
        else:
            spans = spans_of(features, span_rule_of(spec))
            columns.append(list(unseen_blocks(spans, spec.block_size, treatment.seen_in_reply)))
    return columns


def evict(plan: PruningPlan, vllm_config: VllmConfig) -> None:
    """Let this process's workers follow the scheduler's evictions, where the plan has any."""
    if any(one.evicts and plan.heads(one.name) for one in TREATMENTS.values()):
        evict_in_workers(vllm_config, evicted_columns)
