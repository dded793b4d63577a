"""Schedulers for engines with a plan: vLLM's own, which count, and hand live requests to the text-only managers.

Owns the two hand-overs (requests for allocation, the current request for prefix-cache lookup) and nothing of the
scheduling itself. `plan_scheduler` is what to name as vLLM's `scheduler_cls`.
"""

from typing import Any

from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.request import Request

from vhserve.compat import around_prefix_lookup
from vhserve.engine.checks.plan_transport import require_plan
from vhserve.engine.kv_cache.capacity import capacity
from vhserve.engine.kv_cache.manager import TextOnlyManager, lookup_for
from vhserve.engine.kv_cache.spec import count_groups
from vhserve.engine.token_counters import TokenCountersMixin

logger = init_logger("vllm.vhserve")  # below vLLM's, whose level and format users set


class TextOnlyMixin:
    """Put before a vLLM scheduler class; works with any that keeps `requests` and `kv_cache_manager`."""

    requests: dict[str, Request]
    kv_cache_manager: KVCacheManager

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        managers = self.kv_cache_manager.coordinator.single_type_managers
        for manager in managers:
            if isinstance(manager, TextOnlyManager):
                manager.requests = self.requests
        around_prefix_lookup(self.kv_cache_manager, lookup_for)


class TokenCountersScheduler(TokenCountersMixin, Scheduler):
    """vLLM's scheduler, counting."""


class TokenCountersAsyncScheduler(TokenCountersMixin, AsyncScheduler):
    """vLLM's async scheduler, counting."""


class TextOnlyScheduler(TextOnlyMixin, TokenCountersMixin, Scheduler):
    """vLLM's scheduler, counting, with text-only KV cache groups."""


class TextOnlyAsyncScheduler(TextOnlyMixin, TokenCountersMixin, AsyncScheduler):
    """vLLM's async scheduler, counting, with text-only KV cache groups."""


def plan_scheduler(vllm_config: VllmConfig, kv_cache_config: KVCacheConfig, **kwargs: Any) -> Scheduler:
    """Build the one that goes with the plan and with the scheduling; vLLM decides late whether that is async."""
    plan = require_plan(vllm_config.additional_config)
    asynchronous = vllm_config.scheduler_config.async_scheduling
    kind: type[Scheduler] = TokenCountersAsyncScheduler if asynchronous else TokenCountersScheduler
    if plan.heads("text_only"):
        groups, usable = count_groups(kv_cache_config), kv_cache_config.num_blocks - 1
        logger.info("%s", capacity(groups, usable, plan.geometry.image_tokens, vllm_config.cache_config.block_size))
        kind = TextOnlyAsyncScheduler if asynchronous else TextOnlyScheduler
    return kind(vllm_config=vllm_config, kv_cache_config=kv_cache_config, **kwargs)
