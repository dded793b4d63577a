"""Counts image tokens, text tokens and image blocks that were not allocated or freed, since the last statistics.

Owns the counters and how a scheduler keeps them; they leave the engine process with vLLM's own scheduler statistics.
Does not know who reads them.
"""

from typing import Any, ClassVar

from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.request import Request

from profiles.image_spans import RULE, SpanRule
from vhserve.compat.scheduler import put_counts
from vhserve.engine.kv_cache.image_spans import image_spans
from vhserve.engine.kv_cache.manager import partial_managers


class TokenCountersMixin:
    """Mixin before a vLLM scheduler class; counts prompts as they arrive and adds the counts to a step's statistics.

    Attributes
    ----------
    span_rule
        The plan's rule of image spans.
    """

    span_rule: SpanRule = RULE

    requests: dict[str, Request]
    kv_cache_manager: KVCacheManager
    PROMPT_TOKENS: ClassVar = ("image_tokens", "text_tokens")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prompt_tokens = dict.fromkeys(self.PROMPT_TOKENS, 0)

    def add_request(self, request: Request) -> None:
        if request.request_id not in self.requests:  # else a further piece of a streaming session
            image_tokens = sum(stop - start for start, stop in image_spans(request, self.span_rule))
            self._prompt_tokens["image_tokens"] += image_tokens
            self._prompt_tokens["text_tokens"] += request.num_prompt_tokens - image_tokens
        super().add_request(request)  # type: ignore[misc]

    def make_stats(self, *args: Any, **kwargs: Any) -> SchedulerStats | None:
        stats: SchedulerStats | None = super().make_stats(*args, **kwargs)  # type: ignore[misc]
        if stats is not None:
            managers = partial_managers(self.kv_cache_manager)
            blocks = {
                "image_blocks_skipped": sum(manager.take_skipped() for manager in managers),
                "image_blocks_evicted": sum(manager.take_evicted() for manager in managers),
            }
            put_counts(stats, {**self._prompt_tokens, **blocks})
            self._prompt_tokens = dict.fromkeys(self.PROMPT_TOKENS, 0)
        return stats
