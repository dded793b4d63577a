"""Schedulers for engines with a plan: vLLM's own, with token counters and with live requests for text-only managers.

Owns how requests reach the managers: all live ones for allocation, the current one for prefix-cache lookup. vLLM's
`scheduler_cls` is set to `plan_scheduler`. Does not know how requests are scheduled.
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
from vhserve.engine.kv_cache.manager import lookup_for, text_only_managers
from vhserve.engine.kv_cache.spec import count_groups
from vhserve.engine.token_counters import TokenCountersMixin

logger = init_logger("vllm.vhserve")  # a child of vLLM's logger, whose level and format users set


class TextOnlyMixin:
    """Mixin before a vLLM scheduler class that has `requests` and `kv_cache_manager`."""

    requests: dict[str, Request]
    kv_cache_manager: KVCacheManager

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for manager in text_only_managers(self.kv_cache_manager):
            manager.bind_requests(self.requests)
        around_prefix_lookup(self.kv_cache_manager, lookup_for)


class TokenCountersScheduler(TokenCountersMixin, Scheduler):
    """vLLM's scheduler with token counters."""


class TokenCountersAsyncScheduler(TokenCountersMixin, AsyncScheduler):
    """vLLM's async scheduler with token counters."""


class TextOnlyScheduler(TextOnlyMixin, TokenCountersMixin, Scheduler):
    """vLLM's scheduler with token counters and text-only KV cache groups."""


class TextOnlyAsyncScheduler(TextOnlyMixin, TokenCountersMixin, AsyncScheduler):
    """vLLM's async scheduler with token counters and text-only KV cache groups."""


def plan_scheduler(vllm_config: VllmConfig, kv_cache_config: KVCacheConfig, **kwargs: Any) -> Scheduler:
    """Build the scheduler for the plan in `vllm_config`; vLLM settles late whether scheduling is async."""
    plan = require_plan(vllm_config.additional_config)
    asynchronous = vllm_config.scheduler_config.async_scheduling
    scheduler_class: type[Scheduler] = TokenCountersAsyncScheduler if asynchronous else TokenCountersScheduler
    if plan.heads("text_only"):
        groups, usable = count_groups(kv_cache_config), kv_cache_config.num_blocks - 1
        logger.info("%s", capacity(groups, usable, plan.geometry.image_tokens, vllm_config.cache_config.block_size))
        scheduler_class = TextOnlyAsyncScheduler if asynchronous else TextOnlyScheduler
    return scheduler_class(vllm_config=vllm_config, kv_cache_config=kv_cache_config, **kwargs)
