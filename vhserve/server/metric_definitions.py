"""Every `vhserve_` metric of a server's `/metrics`: name, kind, meaning, labels.

Owns the names, and that each is one collector in each process, right for one API server and for several. Does not know
where the values come from: `server_info`, `plan_metrics`, `stat_logger` and `request_metrics` (requests), `monitoring`
(canary, shadow).
"""

import functools
from typing import Any, Final, Literal, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class MetricDefinition(NamedTuple):
    """One metric.

    Attributes
    ----------
    text
        Its meaning, as `# HELP` shows it.
    labels
        Names of its labels.
    kind
        For gauges also how the values of several API servers are merged: `gauge` is the same in all of them, `latest`
        is the value set last, `least` the smallest value of a live process.
    shown
        When a server has it: with a plan, with another flag, or always.
    buckets
        Upper ends of a histogram's buckets, in its unit.
    """

    text: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "latest", "least", "counter", "histogram"] = "gauge"
    shown: str = "--plan"
    buckets: tuple[float, ...] = ()


SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
"""Buckets of a whole request's latency."""

OUTCOMES: Final = ("stop", "length", "abort", "error", "refused")

DEFINITIONS: Final = {
    "vhserve_server_info": MetricDefinition(
        "What the server computes with: tokens of a KV block, dtypes of weights and KV cache; always 1.",
        ("block_size", "dtype", "kv_cache_dtype"),
        shown="always",
    ),
    "vhserve_plan_info": MetricDefinition(
        "The plan being served; always 1.",
        (
            "digest",
            "profile_digest",
            "model",
            "revision",
            "architecture",
            "method",
            "granularity",
            "compensation",
            "surgery",
        ),
    ),
    "vhserve_heads": MetricDefinition(
        "Query heads of the model, by stage of their layer and treatment.", ("stage", "treatment")
    ),
    "vhserve_kv_cache_bytes_per_token": MetricDefinition(
        "Bytes of KV cache that one text token takes, with scales, without the plan (baseline) and with it (pruned).",
        ("arm",),
    ),
    "vhserve_kv_cache_capacity_requests": MetricDefinition(
        "Prompts of the model's usual length that the KV cache holds at once, all engines together: with an image "
        "while they are computed, with an image once they are (image_answered), and of as many text tokens.",
        ("prompt",),
    ),
    "vhserve_image_exit_ratio": MetricDefinition(
        "Share of the decoder layers, the last ones, that do not compute tokens of image blocks; 0 where all do."
    ),
    "vhserve_plan_saving_ratio": MetricDefinition(
        "KV cache that the plan saves of the model's usual prompt with an image, as served, over what it promised "
        "(1: as promised); lower where KV blocks are larger than the plan's.",
    ),
    "vhserve_plan_accuracy_ratio": MetricDefinition(
        "Accuracy measured for the plan, 0 to 1, without it (baseline) and with it (pruned).",
        ("dataset", "family", "arm"),
    ),
    "vhserve_plan_accuracy_samples": MetricDefinition(
        "Samples that this accuracy was measured on.", ("dataset", "family", "arm")
    ),
    "vhserve_plan_accuracy_interval_ratio": MetricDefinition(
        "Ends of the 95% Wilson interval of this accuracy.",
        ("dataset", "family", "arm", "bound"),
    ),
    "vhserve_image_tokens_total": MetricDefinition(
        "Prompt tokens in image spans, as the plan's heads drop them, of every sequence that the engines took in.",
        kind="counter",
    ),
    "vhserve_text_tokens_total": MetricDefinition(
        "All other prompt tokens of every sequence that the engines took in.", kind="counter"
    ),
    "vhserve_image_blocks_skipped_total": MetricDefinition(
        "KV cache blocks of nothing but image tokens that were not allocated, over all KV cache groups of text-only "
        "and thinned heads; a preempted sequence counts again.",
        kind="counter",
    ),
    "vhserve_image_blocks_evicted_total": MetricDefinition(
        "KV cache blocks of nothing but image tokens that were freed when their prompt had been computed, over all KV "
        "cache groups of evicted heads; a preempted sequence counts again.",
        kind="counter",
    ),
    "vhserve_admission_waits_total": MetricDefinition(
        "Sequences whose prompts had room, and that waited since replies were reckoned to need it; a preempted one "
        "counts again. 0 with --admission stock.",
        kind="counter",
    ),
    "vhserve_admission_reply_tokens": MetricDefinition(
        "Tokens that nine replies of ten do not exceed, by the last ones; the engine's longest sequence while too few "
        "have ended to say. 0 with --admission stock.",
        kind="latest",
    ),
    "vhserve_requests_total": MetricDefinition(
        "Ends of requests: sequences that ended by a stop or at their length, requests whose client went away (abort), "
        "that failed inside the server (error), or that it did not take (refused: status 4xx and 503).",
        ("outcome",),
        kind="counter",
    ),
    "vhserve_canary_accuracy_ratio": MetricDefinition(
        "Accuracy of the latest complete run of the canary, 0 to 1.", ("dataset",), "latest", "--canary"
    ),
    "vhserve_canary_accuracy_interval_ratio": MetricDefinition(
        "Ends of the 95% Wilson interval of this accuracy.", ("dataset", "bound"), "latest", "--canary"
    ),
    "vhserve_canary_agreement_ratio": MetricDefinition(
        "Answers of the latest complete run that equal those of the first complete run since the server started.",
        ("dataset",),
        "latest",
        "--canary",
    ),
    "vhserve_canary_samples": MetricDefinition(
        "Samples answered in the latest complete run.", ("dataset",), "latest", "--canary"
    ),
    "vhserve_canary_expected_low_ratio": MetricDefinition(
        "Low end of the interval that the plan records for the canary's dataset, pruned; absent where it records none.",
        ("dataset",),
        "latest",
        "--canary",
    ),
    "vhserve_canary_last_success_timestamp_seconds": MetricDefinition(
        "When the latest complete run ended, in seconds since 1970.", ("dataset",), "latest", "--canary"
    ),
    "vhserve_canary_runs_total": MetricDefinition(
        "Runs of the canary: completed, failed, or skipped because users' requests were waiting all the time.",
        ("dataset", "outcome"),
        "counter",
        "--canary",
    ),
    "vhserve_canary_request_seconds": MetricDefinition(
        "Latency of the canary's requests, from sending one to its whole answer.",
        ("dataset",),
        "histogram",
        "--canary",
        SECONDS,
    ),
    "vhserve_shadow_requests_total": MetricDefinition(
        "Live requests chosen for the shadow: the reference's greedy answer was the same (agree) or not (differ), the "
        "reference did not answer (failed), or there was nothing to compare or no room to (skipped).",
        ("outcome",),
        "counter",
        "--shadow-url",
    ),
    "vhserve_shadow_request_seconds": MetricDefinition(
        "Latency of compared requests, to the whole answer: here (pruned) and on the reference.",
        ("arm",),
        "histogram",
        "--shadow-url",
        SECONDS,
    ),
    "vhserve_shadow_up": MetricDefinition(
        "Whether the reference answers: 1 or 0; 0 where one of several API servers finds that it does not.",
        (),
        "least",
        "--shadow-url",
    ),
}
"""Every metric by its name."""

_GAUGES: Final = {"gauge": "max", "latest": "mostrecent", "least": "livemin"}

_KINDS: Final = {**dict.fromkeys(_GAUGES, "gauge"), "counter": "counter", "histogram": "histogram"}


def collector(name: str, registry: CollectorRegistry = REGISTRY) -> Any:
    """The Prometheus collector of a metric, made on first use.

    Parameters
    ----------
    registry
        The default one is what vLLM's `/metrics` shows. With several API servers it shows what their processes wrote to
        files instead: counters and histograms are added up, gauges as `MetricDefinition.kind` says.
    """
    return _default(name) if registry is REGISTRY else _make(name, registry)


@functools.cache
def _default(name: str) -> Any:
    return _make(name, REGISTRY)


def _make(name: str, registry: CollectorRegistry) -> Any:
    definition = DEFINITIONS[name]
    if definition.kind == "counter":
        return Counter(name, definition.text, definition.labels, registry=registry)
    if definition.kind == "histogram":
        return Histogram(name, definition.text, definition.labels, registry=registry, buckets=definition.buckets)
    mode: Any = _GAUGES[definition.kind]
    return Gauge(name, definition.text, definition.labels, registry=registry, multiprocess_mode=mode)


def table() -> str:
    """All metrics as a Markdown table: what docs/metrics.md shows."""
    rows = [
        f"| `{name}` | {_KINDS[definition.kind]} | {', '.join(f'`{label}`' for label in definition.labels)} | "
        f"{definition.text} | `{definition.shown}` |"
        for name, definition in DEFINITIONS.items()
    ]
    return "\n".join(["| series | kind | labels | meaning | with |", "|---|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
