"""Turns a head profile into a pruning plan: which heads go, which see text only, which are protected.

Heads are chosen in units (`units`), in the order of a ranking (`rankings`) or of a seed. Does not know where rankings
come from, or how a plan is served.
"""

import hashlib
from collections.abc import Collection, Sequence
from math import ceil

import numpy as np

from profiles.errors import MeansMissing, ProtectedHeadTreated, WrongValue
from profiles.geometry import stage_layers
from profiles.head_profile import HeadProfile
from profiles.names import (
    TREATED,
    CompensationMethod,
    Granularity,
    Select,
    StageOrAll,
    Treatment,
)
from profiles.planning.budget import check_budget, check_multiple
from profiles.planning.layout import layer_layouts
from profiles.planning.rankings import Table, ranking
from profiles.planning.units import Unit, unit_size, units
from profiles.provenance import git_commit, versions
from profiles.pruning_plan import Compensation, PruningPlan, Selection


def make_plan(
    profile: HeadProfile,
    *,
    remove: int,
    stage: StageOrAll,
    select: Select,
    protect_top: float,
    seed: int,
    granularity: Granularity,
    compensation: CompensationMethod,
    text_only: int = 0,
    rank_by: str = "score",
    avoid: Collection[tuple[int, int]] = (),
) -> PruningPlan:
    """Choose heads by a ranking of the profile.

    Parameters
    ----------
    remove, text_only
        Query heads to remove, and to make text-only: the first units of the order of `select`, and the first ones of
        the others' order. Both orders are the same unless the ranking has a table for each treatment.
    select
        ``bottom``: lowest ranked first; ``top``: highest first; ``random``: an order in which a unit's place depends
        on the seed and the unit alone. Equally ranked ones go by layer and head.
    protect_top
        Percentage of the whole model's heads, the highest ranked for removal, that are never treated; nor is any unit
        with one of them. ``bottom`` and ``random`` pass them over. ``top`` is a control that means the very top, so it
        refuses.
    rank_by
        See `profiles.planning.rankings.ranking`.
    avoid
        Heads that are not chosen either, nor any unit with one of them; for controls.
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
    RankingMissing
        The profile was made without the table to rank by.
    LayoutRefused
        The plan leaves no head, or mixes text-only and full query heads of one KV head.
    """
    geometry = profile.geometry
    check_multiple(remove, "remove", geometry, granularity)
    check_multiple(text_only, "text-only", geometry, granularity)
    worth = {treatment: ranking(profile, rank_by, treatment) for treatment in TREATED}
    protected = protected_heads(worth["removed"], protect_top)
    everything = units(geometry, worth["removed"], granularity)
    treatments: list[list[Treatment]] = [["full"] * geometry.query_heads for _ in range(geometry.layers)]
    size, taken = unit_size(geometry, granularity), set[tuple[int, int]]()
    for treatment, budget in zip(TREATED, (remove, text_only), strict=True):
        order = _order(everything, worth[treatment], stage, select, seed)
        pool = order if select == "top" else [unit for unit in order if _is_free(unit, protected)]
        pool = [unit for unit in pool if _is_free(unit, set(avoid))]
        check_budget(remove + text_only, stage, len(order) * size, len(pool) * size, protect_top)
        chosen = [unit for unit in pool if _is_free(unit, taken)][: budget // size]
        _refuse_protected(chosen, protected, protect_top)
        for unit in chosen:
            taken |= {(unit.layer, head) for head in unit.heads}
            for head in unit.heads:
                treatments[unit.layer][head] = treatment
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
            rank_by=rank_by,
        ),
        granularity=granularity,
        treatments=treatments,
        compensation=_compensation(profile, treatments, compensation),
        versions=versions("vhserve", "numpy", "pydantic"),
        commit=git_commit(),
    )
    layer_layouts(plan)
    return plan


def protected_heads(worth: Table, percent: float) -> set[tuple[int, int]]:
    """The `percent` highest ranked heads ``(layer, head)`` of the whole model; a part of a head counts as one.

    Raises
    ------
    WrongValue
        `percent` is not in 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise WrongValue(f"--protect-top is {percent:g}", expected="0 to 100 (percent)", fix="give --protect-top 10")
    count = ceil(round(percent * worth.size / 100, 9))
    order = sorted(np.ndindex(*worth.shape), key=lambda head: (-worth[head], head))
    return {(layer, head) for layer, head in order[:count]}


def _order(everything: Sequence[Unit], worth: Table, stage: StageOrAll, select: Select, seed: int) -> list[Unit]:
    """The units of a stage, the first to be treated first."""

    def rank(unit: Unit) -> tuple[object, ...]:
        if select == "random":  # a hash, because numpy doesn't promise equal draws between versions
            return (hashlib.sha256(f"{seed}:{unit.layer}:{unit.heads}".encode()).digest(),)
        mean = float(np.mean(worth[unit.layer, unit.heads]))
        return (mean if select == "bottom" else -mean, unit.layer, unit.heads)

    layers = stage_layers(stage, len(worth))
    return sorted((unit for unit in everything if unit.layer in layers), key=rank)


def _is_free(unit: Unit, others: set[tuple[int, int]]) -> bool:
    return others.isdisjoint((unit.layer, head) for head in unit.heads)


def _refuse_protected(treated: list[Unit], protected: set[tuple[int, int]], protect_top: float) -> None:
    for unit in treated:
        if not _is_free(unit, protected):
            raise ProtectedHeadTreated(
                f"the top heads include layer {unit.layer} heads {list(unit.heads)}, which --protect-top "
                f"{protect_top:g} protects",
                expected="no protection with --select top, a control that means the very top",
                fix="give --protect-top 0",
            )


def _compensation(profile: HeadProfile, treatments: list[list[Treatment]], method: CompensationMethod) -> Compensation:
    if method == "none":
        return Compensation()
    if profile.mean_output is None:
        raise MeansMissing(
            "the profile has no mean outputs (mean_output is null)",
            expected="a profile with mean outputs for --compensation mean",
            fix="calibrate again with mean outputs, or use --compensation none",
        )
    return Compensation(method="mean", means=profile.mean_output[np.array(treatments) == "removed"])
