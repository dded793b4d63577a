"""Schedulers for engines with a plan: vLLM's own, with token counters, admission that reckons with replies, and what
partial heads' KV cache needs.

Owns how requests reach the managers (all live ones for allocation, the current one for prefix-cache lookup), and where
heads evict, that no step computes tokens of a prompt and of its reply, and that no reply becomes a prompt. vLLM's
`scheduler_cls` is set to `plan_scheduler`.
"""

from typing import Any, Final, cast

from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.request import Request

from vhserve.compat.requests import refuse_sessions
from vhserve.compat.scheduler import around_prefix_lookup, at_session_update, end_chunks_early, keep_image_data
from vhserve.engine.admission.mixin import AdmissionMixin
from vhserve.engine.checks.admission_choice import RECKON, asked_admission
from vhserve.engine.checks.plan_transport import require_plan
from vhserve.engine.kv_cache.capacity import capacity
from vhserve.engine.kv_cache.manager import bind, lookup_for, partial_managers
from vhserve.engine.kv_cache.spec import count_groups
from vhserve.engine.token_counters import TokenCountersMixin

NO_SESSIONS: Final = (
    "a session whose input goes on after a reply, with a plan that evicts image blocks; expected one prompt a request; "
    "send the conversation so far with every turn"
)
"""Its replies would become prompts, which see the image that was evicted."""

logger = init_logger("vllm.vhserve")  # a child of vLLM's logger, whose level and format users set


class PartialMixin:
    """Mixin before a vLLM scheduler class that has `requests` and `kv_cache_manager`."""

    requests: dict[str, Request]
    kv_cache_manager: KVCacheManager

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        bind(self.kv_cache_manager, self.requests)
        around_prefix_lookup(self.kv_cache_manager, lookup_for)
        at_session_update(self, self._drop_unseen)
        if any(manager.treatment.evicts for manager in partial_managers(self.kv_cache_manager)):
            end_chunks_early(self, tokens_of_one_phase)
            keep_image_data()
            refuse_sessions(self, NO_SESSIONS)

    def _drop_unseen(self, session: Request) -> None:
        for manager in partial_managers(self.kv_cache_manager):
            manager.drop_unseen(session)


def tokens_of_one_phase(request: Request, computed: int, tokens: int) -> int:
    """How many of the `tokens` that follow `computed` ones to compute in a step: of the prompt or of the reply only.

    A request that was preempted in its reply is computed anew from its beginning; its prompt sees the image, and its
    reply does not.
    """
    left = request.num_prompt_tokens - computed
    return left if request.num_tokens > request.num_prompt_tokens and 0 < left < tokens else tokens


class TokenCountersScheduler(AdmissionMixin, TokenCountersMixin, Scheduler):
    """vLLM's scheduler with token counters."""


class TokenCountersAsyncScheduler(AdmissionMixin, TokenCountersMixin, AsyncScheduler):
    """vLLM's async scheduler with token counters."""


class PartialScheduler(AdmissionMixin, PartialMixin, TokenCountersMixin, Scheduler):
    """vLLM's scheduler with token counters and KV cache groups of partial heads."""


class PartialAsyncScheduler(AdmissionMixin, PartialMixin, TokenCountersMixin, AsyncScheduler):
    """vLLM's async scheduler with token counters and KV cache groups of partial heads."""


def plan_scheduler(vllm_config: VllmConfig, kv_cache_config: KVCacheConfig, **kwargs: Any) -> Scheduler:
    """Build the scheduler for the plan in `vllm_config`; vLLM settles late whether scheduling is async."""
    plan = require_plan(vllm_config.additional_config)
    asynchronous = vllm_config.scheduler_config.async_scheduling
    scheduler_class: type[Scheduler] = TokenCountersAsyncScheduler if asynchronous else TokenCountersScheduler
    if plan.has_partial_heads:
        groups, usable = count_groups(kv_cache_config), kv_cache_config.num_blocks - 1
        logger.info("%s", capacity(groups, usable, plan.geometry.image_tokens, vllm_config.cache_config.block_size))
        scheduler_class = PartialAsyncScheduler if asynchronous else PartialScheduler
    if asked_admission(vllm_config.additional_config) == RECKON:
        logger.info("Requests are admitted while the replies of all that run will find room (--admission reckon)")
    else:
        logger.info("Requests are admitted by their prompts alone (--admission stock)")
    scheduler: Any = scheduler_class(vllm_config=vllm_config, kv_cache_config=kv_cache_config, **kwargs)
    scheduler.span_rule = plan.span_rule
    return cast(Scheduler, scheduler)
