"""A scheduler that takes a waiting request in only while the replies of all that run will find room.

Owns when it is reckoned, and what is counted. Requests stay in vLLM's order: one that must wait holds up those behind
it, as one does for which there are no blocks. Where nothing runs vLLM alone decides, so that none waits for ever. Does
not know the arithmetic (`reckoning`) or blocks (`holders`).
"""

from typing import Any, Final

from vllm.config import VllmConfig
from vllm.v1.core.kv_cache_manager import KVCacheBlocks, KVCacheManager
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.request import Request, RequestStatus

from vhserve.compat.scheduler import around_admission, at_request_end, put_counts
from vhserve.engine.admission.holders import Holders
from vhserve.engine.admission.reckoning import HORIZON, fits
from vhserve.engine.admission.reply_lengths import ReplyLengths
from vhserve.engine.checks.admission_choice import RECKON, asked_admission

_BY_ITSELF: Final = (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_REPETITION)

_PATIENCE: Final = 8
"""Steps until a request that had to wait is reckoned with anew, where nothing has ended meanwhile."""


class AdmissionMixin:
    """Mixin before a vLLM scheduler class; does nothing where stock admission was asked for."""

    vllm_config: VllmConfig
    requests: dict[str, Request]
    kv_cache_manager: KVCacheManager
    max_model_len: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admission: ReplyAdmission | None = None
        if asked_admission(self.vllm_config.additional_config) == RECKON:
            holders = Holders(self.kv_cache_manager, self.requests, self.max_model_len)
            self._admission = ReplyAdmission(holders, self.max_model_len)
            around_admission(self.kv_cache_manager, self._admission.admits)
            at_request_end(self, self._admission.count_end)

    def make_stats(self, *args: Any, **kwargs: Any) -> SchedulerStats | None:
        stats: SchedulerStats | None = super().make_stats(*args, **kwargs)  # type: ignore[misc]
        if stats is not None and self._admission is not None:
            put_counts(stats, self._admission.take_counts())
        return stats


class ReplyAdmission:
    """Decides for one scheduler.

    Parameters
    ----------
    longest
        Tokens of the longest sequence that the engine takes.
    """

    def __init__(self, holders: Holders, longest: int) -> None:
        self._holders = holders
        self._lengths = ReplyLengths()
        self._longest = self._usual = longest
        self._refused, self._asked, self._waits = "", 0, 0
        self._has_new_length = False

    def admits(self, request: Request, hits: KVCacheBlocks | None) -> bool:
        """Whether a waiting request may be given blocks, if there are any; `hits` are those of its cached prefix."""
        if self._holders.holds(request):  # loaded from elsewhere, and resumed
            return True
        if request.request_id == self._refused and 0 < self._asked < _PATIENCE:
            self._asked += 1
            return False
        holders, used = self._holders, self._holders.used
        waiting = holders.waiting(request, hits)
        if used + waiting.peak - waiting.held > holders.blocks:
            return True  # vLLM refuses it
        survival = self._lengths.survival(holders.generated())
        if fits(waiting, holders.running(), used, holders.blocks, holders.growth, survival):
            return True
        self._waits += request.request_id != self._refused
        self._refused, self._asked = request.request_id, 1
        return False

    def count_end(self, request: Request) -> None:
        """Take the end of a request into account."""
        self._asked = 0
        self._lengths.add(request.num_output_tokens, limited=request.status not in _BY_ITSELF)
        self._has_new_length = True

    def take_counts(self) -> dict[str, int]:
        """Requests that had to wait since the last call, and the length in tokens that most replies don't exceed."""
        if self._has_new_length:
            survival = self._lengths.survival(self._holders.generated())
            self._usual, self._has_new_length = survival.quantile(HORIZON, 0, self._longest), False
        waits, self._waits = self._waits, 0
        return {"admission_waits": waits, "admission_reply_tokens": self._usual}
