"""What the Grafana dashboard shows: rows of panels, and the queries of each.

Names the metrics of vhserve/server/metric_definitions.py, of vLLM and of the recording rules; tests/deploy compares
them with a live server. Knows nothing of Grafana's files.
"""

from typing import Final

from panel_types import Panel, Query


def _quantile(share: float, series: str) -> Query:
    name = f"job_plan_le:vllm_{series}_bucket:rate5m"
    return Query(
        f'histogram_quantile({share}, sum by (plan, le) ({name}{{job=~"$job"}}))', f"p{share * 100:g} plan {{{{plan}}}}"
    )


def _latency(title: str, about: str, series: str) -> Panel:
    return Panel(title, about, "s", tuple(_quantile(share, series) for share in (0.5, 0.9, 0.99)))


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Endpoint": (
        Panel(
            "Plans served",
            "The plan of each server; none is a server of the model as it is.",
            "short",
            (Query("instance:vhserve_plan:short{#}", ""),),
            kind="table",
            width=12,
        ),
        Panel(
            "Engines alive",
            "Servers whose /health answers 200.",
            "short",
            (Query('sum(up{job="vhserve-health", instance=~"$instance"})', ""),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Requests",
            "By how they ended.",
            "reqps",
            (Query("sum by (outcome) (rate(vhserve_requests_total{#}[$__rate_interval]))", "{{outcome}}"),),
        ),
    ),
    "Latency by plan": (
        _latency("Time to first token", "From arrival to the first token.", "time_to_first_token_seconds"),
        _latency("Inter-token latency", "Between two tokens of an answer.", "inter_token_latency_seconds"),
        _latency("End to end", "From arrival to the last token.", "e2e_request_latency_seconds"),
        Panel(
            "Missed service level",
            "Share of first tokens later than 1 s and of later tokens slower than 0.1 s; the objective allows 1%.",
            "percentunit",
            (
                Query('job_model:vhserve_slow:ratio_rate5m{job=~"$job"}', "{{slo}}, 5 minutes"),
                Query('job_model:vhserve_slow:ratio_rate1h{job=~"$job"}', "{{slo}}, 1 hour"),
            ),
            width=12,
            most=1,
        ),
        Panel(
            "Time in the queue",
            "Before a request first runs.",
            "s",
            tuple(
                Query(
                    f"histogram_quantile({share}, "
                    "sum by (le) (rate(vllm:request_queue_time_seconds_bucket{#}[$__rate_interval])))",
                    f"p{share * 100:g}",
                )
                for share in (0.5, 0.9, 0.99)
            ),
            width=12,
        ),
    ),
    "Load and KV cache": (
        Panel(
            "Requests in the engine",
            "Running and waiting.",
            "short",
            (
                Query("sum by (instance) (vllm:num_requests_running{#})", "running {{instance}}"),
                Query("sum by (instance) (vllm:num_requests_waiting{#})", "waiting {{instance}}"),
            ),
        ),
        Panel(
            "KV cache used",
            "Share of the blocks in use.",
            "percentunit",
            (Query("vllm:kv_cache_usage_perc{#}", "{{instance}} engine {{engine}}"),),
            most=1,
        ),
        Panel(
            "Preemptions and waits",
            "Requests that lost their KV cache to others, and those that waited so that none does.",
            "ops",
            (
                Query(
                    "sum by (instance) (rate(vllm:num_preemptions_total{#}[$__rate_interval]))",
                    "preempted {{instance}}",
                ),
                Query(
                    "sum by (instance) (rate(vhserve_admission_waits_total{#}[$__rate_interval]))",
                    "waited {{instance}}",
                ),
            ),
        ),
        Panel(
            "Reply length",
            "Tokens that nine replies of ten do not exceed, as admission reckons with them.",
            "short",
            (Query("max by (instance) (vhserve_admission_reply_tokens{#})", "{{instance}}"),),
            width=6,
        ),
        Panel(
            "Prompt tokens",
            "Image and text tokens of prompts, and all tokens generated.",
            "short",
            (
                Query("sum(rate(vhserve_image_tokens_total{#}[$__rate_interval]))", "image"),
                Query("sum(rate(vhserve_text_tokens_total{#}[$__rate_interval]))", "text"),
                Query("sum(rate(vllm:generation_tokens_total{#}[$__rate_interval]))", "generated"),
            ),
            width=6,
        ),
        Panel(
            "Image blocks not kept",
            "KV blocks that text-only and thinned heads never had, and that evicted heads freed, per second.",
            "ops",
            tuple(
                Query(
                    f"sum by (instance) (rate(vhserve_image_blocks_{name}_total{{#}}[$__rate_interval]))",
                    f"{name} {{{{instance}}}}",
                )
                for name in ("skipped", "evicted")
            ),
            width=6,
        ),
        Panel(
            "Prefix cache hits",
            "Share of prompt tokens whose KV cache was there already.",
            "percentunit",
            (
                Query(
                    "sum by (instance) (rate(vllm:prefix_cache_hits_total{#}[$__rate_interval]))"
                    " / sum by (instance) (rate(vllm:prefix_cache_queries_total{#}[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
            width=6,
            most=1,
        ),
        Panel(
            "KV cache per text token",
            "Without the plan and with it.",
            "bytes",
            (Query("max by (arm) (vhserve_kv_cache_bytes_per_token{#})", "{{arm}}"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Prompts that fit the KV cache",
            "Of the model's usual length: with an image while they are computed (image) and while they are answered "
            "(image_answered), and as text.",
            "short",
            (Query("sum by (prompt) (vhserve_kv_cache_capacity_requests{#})", "{{prompt}}"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Saved, of what was promised",
            "KV cache that the plan saves as served over what it promised; less than 1 where KV blocks are larger.",
            "percentunit",
            (Query("min by (instance) (vhserve_plan_saving_ratio{#})", "{{instance}}"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Heads",
            "By treatment.",
            "short",
            (Query("max by (treatment) (sum by (instance, treatment) (vhserve_heads{#}))", "{{treatment}}"),),
            kind="stat",
            width=6,
        ),
    ),
    "Accuracy": (
        Panel(
            "Canary accuracy",
            "On the live engine, with its 95% interval, and the low end of the interval that the plan recorded.",
            "percentunit",
            (
                Query("vhserve_canary_accuracy_ratio{#}", "{{dataset}}"),
                Query("vhserve_canary_accuracy_interval_ratio{#}", "{{dataset}} {{bound}}"),
                Query("vhserve_canary_expected_low_ratio{#}", "{{dataset}} recorded low"),
            ),
            width=12,
            most=1,
        ),
        Panel(
            "Canary answers equal to the first run's",
            "Falls when answers change, whether right or wrong.",
            "percentunit",
            (Query("vhserve_canary_agreement_ratio{#}", "{{dataset}}"),),
            width=6,
            most=1,
        ),
        Panel(
            "Canary requests",
            "How long they took, at low priority.",
            "s",
            tuple(
                Query(
                    f"histogram_quantile({share}, "
                    "sum by (dataset, le) (rate(vhserve_canary_request_seconds_bucket{#}[1h])))",
                    f"p{share * 100:g} {{{{dataset}}}}",
                )
                for share in (0.5, 0.9)
            ),
            width=6,
        ),
        Panel(
            "Canary: samples",
            "Samples of the last run.",
            "short",
            (Query("max by (dataset) (vhserve_canary_samples{#})", "{{dataset}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Canary: since the last run",
            "Time since a run was last completed.",
            "s",
            (Query("time() - max by (dataset) (vhserve_canary_last_success_timestamp_seconds{#})", "{{dataset}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Canary: runs of the last hour",
            "By how they ended.",
            "short",
            (Query("sum by (outcome) (increase(vhserve_canary_runs_total{#}[1h]))", "{{outcome}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Accuracy recorded in the plan",
            "What vhserve evaluate --attach wrote, without the plan and with it.",
            "percentunit",
            (
                Query('max by (dataset, arm) (vhserve_plan_accuracy_ratio{#, family="all"})', "{{dataset}} {{arm}}"),
                Query(
                    'max by (dataset, arm, bound) (vhserve_plan_accuracy_interval_ratio{#, family="all"})',
                    "{{dataset}} {{arm}} {{bound}}",
                ),
            ),
            kind="stat",
            width=12,
        ),
        Panel(
            "Shadow: answers that differ",
            "Share of the repeated requests that the unpruned reference answers otherwise.",
            "percentunit",
            (
                Query(
                    'sum(rate(vhserve_shadow_requests_total{#, outcome="differ"}[5m]))'
                    ' / sum(rate(vhserve_shadow_requests_total{#, outcome=~"agree|differ"}[5m]))',
                    "differ",
                ),
            ),
            most=1,
        ),
        Panel(
            "Shadow: latency of both",
            "Median of the same requests on this endpoint and on the reference.",
            "s",
            (
                Query(
                    "histogram_quantile(0.5, sum by (arm, le) (rate(vhserve_shadow_request_seconds_bucket{#}[5m])))",
                    "{{arm}}",
                ),
            ),
        ),
        Panel(
            "Shadow: requests",
            "By outcome, and whether the reference answers.",
            "short",
            (
                Query("sum by (outcome) (rate(vhserve_shadow_requests_total{#}[5m]))", "{{outcome}} per s"),
                Query("min(vhserve_shadow_up{#})", "reference up"),
            ),
        ),
    ),
}
