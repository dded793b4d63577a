"""Starts vLLM's own OpenAI server, with a plan or without: its flags, its server functions, in this process.

Owns how a plan is put among vLLM's arguments and what is checked before anything is loaded. Does not know how models
are named (`commands.serve` hands over a folder) nor how heads are cut out (`engine`).
"""

from typing import Any

from profiles.layout import layer_layouts
from profiles.pruning_plan import PruningPlan
from vhserve.engine.architectures import served_by
from vhserve.engine.payload import KEY, pack

METRICS_MIDDLEWARE = "vhserve.metrics.PlanMetrics"


def engine_overrides(plan: PruningPlan) -> dict[str, Any]:
    """Arguments that make vLLM serve a plan: for `vllm.LLM`, `AsyncEngineArgs`, or its command line.

    Raises
    ------
    ModelNotServable, LayoutRefused
    """
    layer_layouts(plan)
    return {
        "hf_overrides": {"architectures": [served_by(plan.model.architecture)]},
        "additional_config": {KEY: pack(plan)},
    }
