"""Plans from a profile: of all layers and with no head protected, where the options do not say otherwise."""

from typing import Any

from profiles.head_profile import HeadProfile
from profiles.planning.planner import make_plan
from profiles.pruning_plan import PruningPlan
from profiles.treatments import budgeted

DEFAULTS: dict[str, Any] = {
    "remove": 0,
    "stage": "all",
    "select": "bottom",
    "protect_top": 0.0,
    "seed": 0,
    "granularity": "query_head",
    "compensation": "none",
}


def plan_for(profile: HeadProfile, **options: Any) -> PruningPlan:
    options = DEFAULTS | options
    budgets = {one.name: options.pop(one.budget) for one in budgeted() if one.budget in options}
    return make_plan(profile, budgets=budgets, **options)
