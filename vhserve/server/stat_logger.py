"""Metrics of a plan's engines in each API server, through vLLM's entry point `vllm.stat_logger_plugins`.

Owns what is read off vLLM's statistics: tokens, blocks, how sequences finished, and the queue lengths that the canary
waits for. Exports nothing on a server without a plan. Knows no HTTP: `request_metrics` counts what ends outside the
engine.
"""

from vllm.config import VllmConfig
from vllm.v1.engine import FinishReason
from vllm.v1.metrics.loggers import AggregateStatLoggerBase
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

from vhserve.compat.scheduler import take_counts
from vhserve.engine.checks.plan_transport import KEY
from vhserve.server.metric_definitions import OUTCOMES, collector
from vhserve.server.monitoring import queue_state

_TOTALS = {
    "image_tokens": "vhserve_image_tokens_total",
    "text_tokens": "vhserve_text_tokens_total",
    "image_blocks_skipped": "vhserve_image_blocks_skipped_total",
    "image_blocks_evicted": "vhserve_image_blocks_evicted_total",
    "admission_waits": "vhserve_admission_waits_total",
}

_LATEST = {"admission_reply_tokens": "vhserve_admission_reply_tokens"}

_ENDS = {
    FinishReason.STOP: "stop",
    FinishReason.REPETITION: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORT: "abort",
}
"""Aborts here are the engine's own, as when it shuts down: it does not report those that a client caused, which
`request_metrics` counts. It also counts errors, since each becomes a status or an event.
"""


class PlanStatLogger(AggregateStatLoggerBase):
    """Aggregate: vLLM makes one for all data-parallel engines, in the process of every API server.

    Every engine sends each step's statistics to one API server only, so that processes add up.
    """

    def __init__(self, vllm_config: VllmConfig, engine_indexes: list[int] | None = None) -> None:
        config = vllm_config.additional_config
        self.with_plan = isinstance(config, dict) and KEY in config
        if self.with_plan:
            for name in (*_TOTALS.values(), *_LATEST.values()):
                collector(name)
            for outcome in OUTCOMES:
                collector("vhserve_requests_total").labels(outcome=outcome)

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is not None:
            queue_state.report(engine_idx, scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs)
        if not self.with_plan:
            return
        if scheduler_stats is not None:
            for name, count in take_counts(scheduler_stats).items():
                if name in _LATEST:
                    collector(_LATEST[name]).set(count)
                else:
                    collector(_TOTALS[name]).inc(count)
        if iteration_stats is not None:
            for sequence in iteration_stats.finished_requests:
                if outcome := _ENDS.get(sequence.finish_reason):
                    collector("vhserve_requests_total").labels(outcome=outcome).inc()

    def log_engine_initialized(self) -> None: ...

    def record_admission_rejection(self, reason: str) -> None: ...

    def record_sleep_state(self, is_awake: int, level: int) -> None: ...
