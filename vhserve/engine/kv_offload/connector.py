"""vLLM's offloading connector for engines with a plan: its blocks are the plan's, and some heads keep no image blocks.

Owns which blocks a group lacks and whose a block is. Named as vLLM's, since `--kv-offloading-size` sets that name;
`kv_connector_module_path` leads here. Does not know where the blocks go (`host_memory`), nor how vLLM's scheduler is
made to skip what is missing (`compat.offloading`).
"""

from collections.abc import Collection
from typing import Any

from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1 import offloading_connector as stock
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.request import Request

from profiles.treatments import Phase
from vhserve.compat.offloading import as_full_attention, follow_evictions, pass_over_gaps, salt_block_hashes
from vhserve.compat.scheduler import keep_image_data
from vhserve.engine.checks.plan_transport import require_plan
from vhserve.engine.kv_cache.image_spans import image_spans, unseen_blocks
from vhserve.engine.kv_cache.manager import span_rule_of, treatment_of
from vhserve.engine.kv_cache.spec import OWN_FIELDS, PartialSpec


class OffloadingConnector(stock.OffloadingConnector):
    """vLLM's connector, one in the scheduler and one in each worker.

    Raises
    ------
    PlanMissing
        The engine has no plan.
    """

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        self._salt = require_plan(vllm_config.additional_config).digest
        self._groups = kv_cache_config.kv_cache_groups
        treatments = [treatment_of(group.kv_cache_spec) for group in self._groups]
        self._block_size = vllm_config.cache_config.block_size
        self._evicts = any(treatment is not None and treatment.evicts for treatment in treatments)
        known = as_full_attention(kv_cache_config, lambda spec: isinstance(spec, PartialSpec), OWN_FIELDS)
        super().__init__(vllm_config, role, known)
        if role == KVConnectorRole.SCHEDULER:
            pass_over_gaps(self.connector_scheduler, self._gaps)
            if self._evicts:
                follow_evictions(self.connector_scheduler, self._evicted)
            keep_image_data()  # a resumed request may find less than it began with: chunks are replaced

    def on_new_request(self, request: Request) -> None:
        salt_block_hashes(request, self._salt)
        super().on_new_request(request)

    def _gaps(self, request: Request, group: int) -> Collection[int]:
        """Indices of the image blocks that a request never keeps in a group."""
        return self._unseen(request, group, "prompt")

    def _evicted(self, request: Request, group: int) -> Collection[int]:
        """Indices of the image blocks that a request does not keep in a group once its prompt is computed."""
        return self._unseen(request, group, "reply")

    def _unseen(self, request: Request, group: int, phase: Phase) -> Collection[int]:
        spec: Any = self._groups[group].kv_cache_spec
        treatment = treatment_of(spec)
        if treatment is None:
            return ()
        spans = image_spans(request, span_rule_of(spec))
        return frozenset(unseen_blocks(spans, spec.block_size, treatment.seen(phase)))

    def _max_loadable_tokens(self, request: Request, num_computed_tokens: int) -> int | None:
        """Where a plan evicts, no load reaches into a reply: blocks that are stored saw the image, as prompts do."""
        if not self._evicts:
            most: int | None = super()._max_loadable_tokens(request, num_computed_tokens)
            return most
        whole_blocks = request.num_prompt_tokens // self._block_size * self._block_size
        return max(0, whole_blocks - num_computed_tokens)

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: VllmConfig) -> str | None:
        """Layout of the KV cache that transfers are fastest with; None where partial heads' own are the only ones."""
        if require_plan(vllm_config.additional_config).has_partial_heads:
            return None
        layout: str | None = super().get_required_kvcache_layout(vllm_config)
        return layout
