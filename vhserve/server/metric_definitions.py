"""Every `vhserve_` series of a server's `/metrics`: name, kind, meaning, labels.

Owns the names, and that each is one collector in each process, right for one API server and for several. Does not know
where the values come from: `metrics` (the plan), `stat_logger` and `outcomes` (the traffic), `live` (canary, shadow).
"""

import functools
from typing import Any, Final, Literal, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class Series(NamedTuple):
    """One metric.

    Attributes
    ----------
    text
        What it says, as `# HELP` shows it.
    labels
        Names of its labels.
    kind
        Of gauges, what several API servers show: `gauge` is what all of them know alike, `latest` what one of them has
        found out last, `least` the least that a living one finds.
    shown
        When a server has it: always with a plan, or with a flag.
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

SERIES: Final = {
    "vhserve_plan_info": Series(
        "The plan being served; always 1.",
        ("digest", "profile_digest", "model", "revision", "architecture", "method", "granularity", "compensation"),
    ),
    "vhserve_heads": Series("Query heads of the model, by stage of their layer and treatment.", ("stage", "treatment")),
    "vhserve_kv_cache_bytes_per_token": Series(
        "Bytes of KV cache that one text token takes, without the plan (baseline) and with it (pruned).",
        ("arm",),
    ),
    "vhserve_kv_cache_capacity_requests": Series(
        "Prompts of the model's usual length that the KV cache holds at once, all engines together: "
        "with an image, and of as many text tokens.",
        ("prompt",),
    ),
    "vhserve_plan_accuracy_ratio": Series(
        "Accuracy measured for the plan, 0 to 1, without it (baseline) and with it (pruned).",
        ("dataset", "family", "arm"),
    ),
    "vhserve_plan_accuracy_samples": Series(
        "Samples that this accuracy was measured on.", ("dataset", "family", "arm")
    ),
    "vhserve_plan_accuracy_interval_ratio": Series(
        "Ends of the 95% Wilson interval of this accuracy.",
        ("dataset", "family", "arm", "bound"),
    ),
    "vhserve_image_tokens_total": Series(
        "Prompt tokens that hold the embedding of an image, of every sequence that the engines took in.",
        kind="counter",
    ),
    "vhserve_text_tokens_total": Series(
        "All other prompt tokens of every sequence that the engines took in.", kind="counter"
    ),
    "vhserve_image_blocks_skipped_total": Series(
        "KV cache blocks of nothing but image tokens that were not allocated, over all KV cache groups of text-only "
        "heads; a preempted sequence counts again.",
        kind="counter",
    ),
    "vhserve_requests_total": Series(
        "Ends of requests: sequences that ended by a stop or at their length, requests whose client went away (abort), "
        "that failed inside the server (error), or that it did not take (refused: status 4xx and 503).",
        ("outcome",),
        kind="counter",
    ),
    "vhserve_canary_accuracy_ratio": Series(
        "Accuracy of the latest complete run of the canary, 0 to 1.", ("dataset",), "latest", "--canary"
    ),
    "vhserve_canary_accuracy_interval_ratio": Series(
        "Ends of the 95% Wilson interval of this accuracy.", ("dataset", "bound"), "latest", "--canary"
    ),
    "vhserve_canary_agreement_ratio": Series(
        "Answers of the latest complete run that equal those of the first complete run since the server started.",
        ("dataset",),
        "latest",
        "--canary",
    ),
    "vhserve_canary_samples": Series(
        "Samples answered in the latest complete run.", ("dataset",), "latest", "--canary"
    ),
    "vhserve_canary_expected_low_ratio": Series(
        "Low end of the interval that the plan records for the canary's dataset, pruned; absent where it records none.",
        ("dataset",),
        "latest",
        "--canary",
    ),
    "vhserve_canary_last_success_timestamp_seconds": Series(
        "When the latest complete run ended, in seconds since 1970.", ("dataset",), "latest", "--canary"
    ),
    "vhserve_canary_runs_total": Series(
        "Runs of the canary: completed, failed, or skipped because users' requests were waiting all the time.",
        ("dataset", "outcome"),
        "counter",
        "--canary",
    ),
    "vhserve_canary_request_seconds": Series(
        "Latency of the canary's requests, from sending one to its whole answer.",
        ("dataset",),
        "histogram",
        "--canary",
        SECONDS,
    ),
    "vhserve_shadow_requests_total": Series(
        "Live requests chosen for the shadow: the reference's greedy answer was the same (agree) or not (differ), the "
        "reference did not answer (failed), or there was nothing to compare or no room to (skipped).",
        ("outcome",),
        "counter",
        "--shadow-url",
    ),
    "vhserve_shadow_request_seconds": Series(
        "Latency of compared requests, to the whole answer: here (pruned) and on the reference.",
        ("arm",),
        "histogram",
        "--shadow-url",
        SECONDS,
    ),
    "vhserve_shadow_up": Series(
        "Whether the reference answers: 1 or 0; 0 where one of several API servers finds that it does not.",
        (),
        "least",
        "--shadow-url",
    ),
}
"""Every series by its name."""

_GAUGES: Final = {"gauge": "max", "latest": "mostrecent", "least": "livemin"}

_KINDS: Final = {**dict.fromkeys(_GAUGES, "gauge"), "counter": "counter", "histogram": "histogram"}


def collector(name: str, registry: CollectorRegistry = REGISTRY) -> Any:
    """The collector of a series, made on first use.

    Parameters
    ----------
    registry
        The default one is what vLLM's `/metrics` shows. With several API servers it shows what their processes wrote to
        files instead: counters and histograms are added up, gauges as `Series.kind` says.
    """
    return _default(name) if registry is REGISTRY else _make(name, registry)


@functools.cache
def _default(name: str) -> Any:
    return _make(name, REGISTRY)


def _make(name: str, registry: CollectorRegistry) -> Any:
    series = SERIES[name]
    if series.kind == "counter":
        return Counter(name, series.text, series.labels, registry=registry)
    if series.kind == "histogram":
        return Histogram(name, series.text, series.labels, registry=registry, buckets=series.buckets)
    mode: Any = _GAUGES[series.kind]
    return Gauge(name, series.text, series.labels, registry=registry, multiprocess_mode=mode)


def table() -> str:
    """All series as a Markdown table: what docs/metrics.md shows."""
    rows = [
        f"| `{name}` | {_KINDS[series.kind]} | {', '.join(f'`{label}`' for label in series.labels)} | "
        f"{series.text} | `{series.shown}` |"
        for name, series in SERIES.items()
    ]
    return "\n".join(["| series | kind | labels | meaning | with |", "|---|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
