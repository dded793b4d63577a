"""Turns a head profile into a pruning plan: which heads go, which see text only, which are protected.

Heads are chosen in units (`profiles.units`), in the order of their scores or of a seed. Does not know where scores come
from, or how a plan is served.
"""

import hashlib
from math import ceil
from typing import Literal

import numpy as np

from profiles.budget import check_budget, check_multiple
from profiles.errors import MeansMissing, ProtectedHeadTreated, WrongValue
from profiles.geometry import StageOrAll, stage_layers
from profiles.head_profile import HeadProfile
from profiles.layout import layer_layouts
from profiles.provenance import git_commit, versions
from profiles.pruning_plan import Compensation, Granularity, PruningPlan, Selection, Treatment
from profiles.units import Unit, unit_size, units

Select = Literal["bottom", "top", "random"]


def make_plan(
    profile: HeadProfile,
    *,
    remove: int,
    stage: StageOrAll,
    select: Select,
    protect_top: float,
    seed: int,
    granularity: Granularity,
    compensation: Literal["none", "mean"],
    text_only: int = 0,
) -> PruningPlan:
    """Choose heads by score.

    Parameters
    ----------
    remove, text_only
        Query heads to remove, and to make text-only: the first units of the order of `select`, and the next ones.
    select
        ``bottom``: lowest scores first; ``top``: highest first; ``random``: an order in which a unit's place depends
        on the seed and the unit alone. Equal scores go by layer and head.
    protect_top
        Percentage of the whole model's heads, the highest scored, that are never treated; nor is any unit with one of
        them. ``bottom`` and ``random`` pass them over. ``top`` is a control that means the very top, so it refuses.
    compensation
        ``mean``: put the removed heads' mean outputs into the plan.

    Raises
    ------
    BudgetTooLarge
        The stage, or its unprotected part, has fewer heads.
    ProtectedHeadTreated
        ``top`` would treat a protected head.
    WrongValue
        A budget is not a multiple of the unit, or a parameter is out of range.
    MeansMissing
        ``mean`` without mean outputs in the profile.
    LayoutRefused
        The plan leaves no head, or mixes text-only and full query heads of one KV head.
    """
    geometry = profile.geometry
    check_multiple(remove, "remove", geometry, granularity)
    check_multiple(text_only, "text-only", geometry, granularity)
    protected = protected_heads(profile, protect_top)
    order = _order(profile, granularity, stage, select, seed)
    pool = order if select == "top" else [unit for unit in order if _is_free(unit, protected)]
    size = unit_size(geometry, granularity)
    check_budget(remove + text_only, stage, len(order) * size, len(pool) * size, protect_top)
    treated = pool[: (remove + text_only) // size]
    _refuse_protected(treated, protected, protect_top)

    treatments: list[list[Treatment]] = [["full"] * geometry.query_heads for _ in range(geometry.layers)]
    for index, unit in enumerate(treated):
        for head in unit.heads:
            treatments[unit.layer][head] = "removed" if index < remove // size else "text_only"
    plan = PruningPlan(
        model=profile.model,
        geometry=geometry,
        profile_digest=profile.digest,
        selection=Selection(
            method=select,
            stage=stage,
            remove=remove,
            text_only=text_only,
            protect_top=protect_top,
            protected=sorted(protected),
            seed=seed if select == "random" else None,
        ),
        granularity=granularity,
        treatments=treatments,
        compensation=_compensation(profile, treatments, compensation),
        versions=versions("vhserve", "numpy", "pydantic"),
        commit=git_commit(),
    )
    layer_layouts(plan)
    return plan


def protected_heads(profile: HeadProfile, percent: float) -> set[tuple[int, int]]:
    """The `percent` highest scored heads ``(layer, head)`` of the whole model; a part of a head counts as one.

    Raises
    ------
    WrongValue
        `percent` is not in 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise WrongValue(f"--protect-top is {percent:g}", expected="0 to 100 (percent)", fix="give --protect-top 10")
    scores = profile.scores()
    count = ceil(round(percent * scores.size / 100, 9))
    order = sorted(np.ndindex(*scores.shape), key=lambda head: (-scores[head], head))
    return {(layer, head) for layer, head in order[:count]}


def _order(profile: HeadProfile, granularity: Granularity, stage: StageOrAll, select: Select, seed: int) -> list[Unit]:
    """The units of a stage, the first to be treated first."""

    def rank(unit: Unit) -> tuple[object, ...]:
        if select == "random":  # a hash, because numpy doesn't promise equal draws between versions
            return (hashlib.sha256(f"{seed}:{unit.layer}:{unit.heads}".encode()).digest(),)
        return (unit.score if select == "bottom" else -unit.score, unit.layer, unit.heads)

    layers = stage_layers(stage, profile.geometry.layers)
    return sorted((unit for unit in units(profile, granularity) if unit.layer in layers), key=rank)


def _is_free(unit: Unit, protected: set[tuple[int, int]]) -> bool:
    return protected.isdisjoint((unit.layer, head) for head in unit.heads)


def _refuse_protected(treated: list[Unit], protected: set[tuple[int, int]], protect_top: float) -> None:
    for unit in treated:
        if not _is_free(unit, protected):
            raise ProtectedHeadTreated(
                f"the top heads include layer {unit.layer} heads {list(unit.heads)}, which --protect-top "
                f"{protect_top:g} protects",
                expected="no protection with --select top, a control that means the very top",
                fix="give --protect-top 0",
            )


def _compensation(
    profile: HeadProfile, treatments: list[list[Treatment]], method: Literal["none", "mean"]
) -> Compensation:
    if method == "none":
        return Compensation()
    if profile.mean_output is None:
        raise MeansMissing(
            "the profile has no mean outputs (mean_output is null)",
            expected="a profile with mean outputs for --compensation mean",
            fix="calibrate again with mean outputs, or use --compensation none",
        )
    return Compensation(method="mean", means=profile.mean_output[np.array(treatments) == "removed"])
