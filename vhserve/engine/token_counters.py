"""What an engine has seen of prompts since it last told: image tokens, text tokens, image blocks it did not allocate.

Owns the counts and how a scheduler keeps them; they leave the engine process with vLLM's own scheduler statistics.
Does not know who reads them.
"""

from typing import Any, ClassVar

from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.request import Request

from vhserve.compat import put_counts
from vhserve.engine.kv_cache.image_spans import image_spans
from vhserve.engine.kv_cache.manager import TextOnlyManager


class TokenCountersMixin:
    """Put before a vLLM scheduler class; counts prompts as they come in, and tells with every step's statistics."""

    requests: dict[str, Request]
    kv_cache_manager: KVCacheManager
    SEEN: ClassVar = ("image_tokens", "text_tokens")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen = dict.fromkeys(self.SEEN, 0)

    def add_request(self, request: Request) -> None:
        if request.request_id not in self.requests:  # else a further piece of a streaming session
            of_images = sum(stop - start for start, stop in image_spans(request))
            self._seen["image_tokens"] += of_images
            self._seen["text_tokens"] += request.num_prompt_tokens - of_images
        super().add_request(request)  # type: ignore[misc]

    def make_stats(self, *args: Any, **kwargs: Any) -> SchedulerStats | None:
        stats: SchedulerStats | None = super().make_stats(*args, **kwargs)  # type: ignore[misc]
        if stats is not None:
            put_counts(stats, {**self._seen, "image_blocks_skipped": self._blocks_skipped()})
            self._seen = dict.fromkeys(self.SEEN, 0)
        return stats

    def _blocks_skipped(self) -> int:
        managers = self.kv_cache_manager.coordinator.single_type_managers
        return sum(manager.take_skipped() for manager in managers if isinstance(manager, TextOnlyManager))
