"""Metrics that describe the served plan, on the server's `/metrics` beside vLLM's own.

Owns their values (names are in `metric_definitions`), and when the line is printed that says what the plan saves as
served. None of them exists on a server without a plan. Knows plans and gauges; of vLLM it knows the configuration that
an API server has.
"""

import sys
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry

from profiles.geometry import stage_of
from profiles.names import STAGES
from profiles.planning.savings import kept_kv_heads
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS
from vhserve.compat.api_server import api_server_rank
from vhserve.engine.checks import engine_reports
from vhserve.engine.kv_cache.capacity import Capacity, capacity, groups_of
from vhserve.engine.kv_cache.saving import saving_ratio
from vhserve.server.at_start import AtStart
from vhserve.server.metric_definitions import collector
from vhserve.server.served_saving import described
from vhserve.server.server_info import ServedWith
from vhserve.server.settings import settings_of

_PLAN: Final = (
    "vhserve_plan_info",
    "vhserve_heads",
    "vhserve_kv_cache_bytes_per_token",
    "vhserve_kv_cache_capacity_requests",
    "vhserve_image_exit_ratio",
    "vhserve_plan_saving_ratio",
    "vhserve_plan_accuracy_ratio",
    "vhserve_plan_accuracy_samples",
    "vhserve_plan_accuracy_interval_ratio",
)


def expose(
    plan: PruningPlan,
    cell_bytes: int,
    block_size: int,
    kv_capacity: Capacity | None = None,
    registry: CollectorRegistry = REGISTRY,
    *,
    surgery: str = "",
    image_exit: int | None = None,
) -> None:
    """Put the metrics of a plan into a registry.

    Parameters
    ----------
    cell_bytes, block_size
        Bytes that one KV head keeps of a token, scales included, and tokens of a block of the KV cache.
    kv_capacity
        Capacity of the KV cache, in requests; None where it is not known.
    registry
        The default one is what vLLM's `/metrics` shows.
    surgery
        How the engine has chosen the heads; empty where it is not known.
    image_exit
        First layer that does not compute tokens of image blocks; None where all do.
    """
    gauges = {name: collector(name, registry) for name in _PLAN}
    gauges["vhserve_plan_info"].labels(
        digest=plan.digest,
        profile_digest=plan.profile_digest or "",
        model=plan.model.name,
        revision=plan.model.revision,
        architecture=plan.model.architecture,
        method=plan.selection.method,
        granularity=plan.granularity,
        compensation=plan.compensation.method,
        surgery=surgery,
    ).set(1)
    counts = {(stage, treatment): 0 for stage in STAGES for treatment in TREATMENTS}
    for treatment in TREATMENTS:
        for layer, _ in plan.heads(treatment):
            counts[stage_of(layer, plan.geometry.layers), treatment] += 1
    for (stage, treatment), count in counts.items():
        gauges["vhserve_heads"].labels(stage=stage, treatment=treatment).set(count)
    per_token = gauges["vhserve_kv_cache_bytes_per_token"]
    per_token.labels(arm="baseline").set(plan.geometry.layers * plan.geometry.kv_heads * cell_bytes)
    per_token.labels(arm="pruned").set(kept_kv_heads(plan) * cell_bytes)
    layers = plan.geometry.layers
    gauges["vhserve_image_exit_ratio"].set(0 if image_exit is None else (layers - image_exit) / layers)
    gauges["vhserve_plan_saving_ratio"].set(saving_ratio(plan, block_size))
    if kv_capacity is not None:
        capacity_requests = gauges["vhserve_kv_cache_capacity_requests"]
        capacity_requests.labels(prompt="image").set(kv_capacity.image_requests)
        capacity_requests.labels(prompt="image_answered").set(kv_capacity.image_replies)
        capacity_requests.labels(prompt="text").set(kv_capacity.text_requests)
    for measured in plan.measured:
        labels = {"dataset": measured.dataset, "family": measured.family, "arm": measured.arm}
        gauges["vhserve_plan_accuracy_ratio"].labels(**labels).set(measured.accuracy)
        gauges["vhserve_plan_accuracy_samples"].labels(**labels).set(measured.samples)
        interval = gauges["vhserve_plan_accuracy_interval_ratio"]
        interval.labels(**labels, bound="low").set(measured.low)
        interval.labels(**labels, bound="high").set(measured.high)


class PlanMetrics(AtStart):
    """Exposes the metrics of a server's plan, if it has one."""

    def act(self, app: Any) -> None:
        plan = settings_of(app).plan
        if plan is not None:
            _expose_for(app, plan)


def _expose_for(app: Any, plan: PruningPlan) -> None:
    from vhserve.engine.kv_cache.cell import cell_bytes

    config = app.state.vllm_config
    served = ServedWith.of(config)
    surgery = engine_reports.get("surgery") or ""
    cell = cell_bytes(config, plan.geometry.head_size)
    exit_layer = engine_reports.get("image_exit")
    expose(plan, cell, served.block_size, _capacity(plan, config), surgery=surgery, image_exit=exit_layer)
    if api_server_rank(config) <= 0:
        how = surgery and f"; heads chosen by {surgery}"
        if exit_layer is not None:
            how += f"; tokens of image blocks leave in front of layer {exit_layer} of {plan.geometry.layers}"
        print(f"vhserve: {described(plan, *served)}{how}", file=sys.stderr, flush=True)


def _capacity(plan: PruningPlan, config: Any) -> Capacity | None:
    """Capacity of all engines; of their blocks, which vLLM adds up, each keeps one as the null block."""
    blocks, size = config.cache_config.num_gpu_blocks, config.cache_config.block_size
    if not blocks:
        return None
    usable = blocks - config.parallel_config.data_parallel_size
    return capacity(groups_of(plan, size), usable, plan.geometry.image_tokens, size)
