"""Writing what was measured into the plan that was measured.

Owns which arm may be attached to which plan. Knows no server.
"""

from collections.abc import Sequence
from pathlib import Path

from profiles.head_profile import DatasetRef
from profiles.measurement import Measurement
from profiles.overlap import shared_pictures
from profiles.pruning_plan import PruningPlan
from profiles.store import load_plan, save
from vhserve.evaluation.arms import treatment_name
from vhserve.evaluation.errors import PlanMismatch
from vhserve.evaluation.results import Arm, Server


def check_served(plan: PruningPlan, server: Server, path: Path) -> None:
    """Check that a server runs this plan, or none.

    Raises
    ------
    PlanMismatch
        When it runs another plan, or another revision of the plan's model, or that model with an adapter.
    """
    if server.adapter_of is not None:
        raise PlanMismatch(
            f"{path} is of a model as it is, but {server.model} at {server.base_url} is an adapter of "
            f"{server.adapter_of}",
            expected="the model without an adapter",
            fix=f"give --model {server.adapter_of}, or leave --attach out",
        )
    if server.plan_digest not in (None, plan.digest):
        raise _mismatch(path, f"plan {plan.digest}", f"{server.base_url} serves {server.plan_digest}")
    if server.plan_revision not in (None, plan.model.revision):
        raise _mismatch(path, f"model revision {plan.model.revision}", f"that server has {server.plan_revision}")


def _mismatch(path: Path, has: str, serves: str) -> PlanMismatch:
    return PlanMismatch(
        f"{path} holds {has}, but {serves}",
        expected="a server of this plan, or of its model unpruned",
        fix="serve this plan, or attach to the one that was served",
    )


def attach(path: Path, dataset: DatasetRef, arms: Sequence[Arm]) -> None:
    """Add accuracies to a plan's `measured`, replacing those of the same dataset, arm and family.

    The plan is loaded again, so that nothing added to it in the meantime is lost; its digest doesn't change.

    Raises
    ------
    PlanMismatch
        When an arm was served by another plan.
    profiles.errors.UserError
        When the plan cannot be read or written.
    """
    plan = load_plan(path)
    measured = {(one.dataset, one.arm, one.family): one for one in plan.measured}
    for arm in arms:
        check_served(plan, arm.server, path)
        for one in measurements(dataset.name, arm, shared_pictures(plan.chosen_on, dataset)):
            measured[one.dataset, one.arm, one.family] = one
    save(plan.model_copy(update={"measured": list(measured.values())}), path)


def measurements(dataset: str, arm: Arm, shared: int | None = None) -> list[Measurement]:
    """An arm's figures as a plan holds them; families in which nothing was answered are left out.

    `shared`: how many of the pictures the plan's heads were chosen by, if that is known.
    """
    return [
        Measurement(
            dataset=dataset,
            arm="pruned" if treatment_name(arm.server) == "pruned" else "baseline",
            family=one.family,
            samples=one.answered,
            correct=one.correct,
            accuracy=one.accuracy,
            low=one.low,
            high=one.high,
            block_size=arm.server.block_size,
            dtype=arm.server.dtype,
            shared_pictures=shared,
        )
        for one in arm.figures
        if one.accuracy is not None and one.low is not None and one.high is not None
    ]
