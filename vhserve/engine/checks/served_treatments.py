"""Which treatments the engine can serve: those whose KV cache it has, and those that need none.

Does not know vLLM.
"""

from profiles.pruning_plan import PruningPlan
from profiles.treatments import FULL, REMOVED, TEXT_ONLY, TREATMENTS
from vhserve.errors import TreatmentUnsupported

SERVED = (FULL, TEXT_ONLY, REMOVED)
"""Treatments that the engine has a KV cache for, or that need none."""


def check_treatments(plan: PruningPlan) -> None:
    """Refuse a plan with heads that the engine has no KV cache for.

    Raises
    ------
    TreatmentUnsupported
    """
    for one in TREATMENTS.values():
        if one not in SERVED and plan.heads(one.name):
            raise TreatmentUnsupported(
                f"the plan has {len(plan.heads(one.name))} heads of the treatment {one.name}, which is not served",
                expected=f"heads that are {', '.join(served.name for served in SERVED)}",
                fix="make the plan without them",
            )
