"""Turns a head profile into a pruning plan: which heads go, which see text only, which are protected.

Heads are chosen in units (`units`), in the order of a ranking (`rankings`) or of a seed. Does not know where rankings
come from, or how a plan is served.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from math import ceil

import numpy as np

from profiles.chat_template import TemplateRef
from profiles.errors import MeansMissing, ProtectedHeadTreated, WrongValue
from profiles.geometry import ModelGeometry, stage_layers
from profiles.head_profile import HeadProfile
from profiles.names import CompensationMethod, Granularity, Select, StageOrAll, TreatmentName
from profiles.planning.budget import check_budget, check_exit_layer, check_multiple
from profiles.planning.layout import layer_layouts
from profiles.planning.rankings import Table, unit_ranking
from profiles.planning.units import Unit, unit_size, units
from profiles.provenance import git_commit, versions
from profiles.pruning_plan import Compensation, PruningPlan, rule_for
from profiles.selection import Selection, counts_by_budget
from profiles.treatments import FULL, REMOVED, TEXT_ONLY, TREATMENTS, budgeted


def make_plan(
    profile: HeadProfile,
    *,
    budgets: Mapping[TreatmentName, int],
    stage: StageOrAll,
    select: Select,
    protect_top: float,
    seed: int,
    granularity: Granularity,
    compensation: CompensationMethod,
    rank_by: str = "score",
    block_size: int | None = None,
    avoid: Collection[tuple[int, int]] = (),
    exit_layer: int | None = None,
) -> PruningPlan:
    """Choose heads by a ranking of the profile.

    Parameters
    ----------
    budgets
        Query heads to treat, by treatment; none for a treatment that is left out. Removed heads are the first units of
        the order of `select`, text-only ones the first of the others' order, and so on (`treatments.budgeted`). The
        orders are the same unless the ranking has a table for each treatment.
    select
        ``bottom``: lowest ranked first; ``top``: highest first; ``random``: an order in which a unit's place depends
        on the seed and the unit alone. Equally ranked ones go by layer and head.
    protect_top
        Percentage of the whole model's heads, the highest ranked for removal, that are never treated; nor is any unit
        with one of them. With granularity ``kv_group`` whole KV groups are protected. ``bottom`` and ``random`` pass
        them over. ``top`` is a control that means the very top, so it refuses.
    rank_by
        See `profiles.planning.rankings.ranking`; with granularity ``kv_group`` what it says of groups.
    block_size
        Tokens of the KV blocks that the plan is for; None: it does not say. Heads are chosen without it.
    avoid
        Heads that are not chosen either, nor any unit with one of them; for controls.
    exit_layer
        First layer, 0-based, of those in which every head that is not removed becomes text-only, beside the budgets, so
        that image tokens need not be computed there (`profiles.planning.image_exit`). None: no layer.
    compensation
        ``mean``: put the removed heads' mean outputs into the plan.

    Raises
    ------
    BudgetTooLarge
        The stage, or its unprotected part, has fewer heads.
    ProtectedHeadTreated
        ``top``, or `exit_layer`, would treat a protected head.
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
    counts = {one.name: budgets.get(one.name, 0) for one in budgeted()}
    if unknown := budgets.keys() - counts.keys():
        raise ValueError(f"no budgets for {sorted(unknown)}: expected some of {list(counts)}")
    for name, budget in counts.items():
        check_multiple(budget, TREATMENTS[name].flag, geometry, granularity)
    ranked = [name for name in counts if counts[name] or name == REMOVED.name]
    worth = {name: unit_ranking(profile, rank_by, name, granularity) for name in ranked}
    protected = protected_heads(worth[REMOVED.name], protect_top)
    if granularity == "kv_group":
        protected = {(i, head) for i, j in protected for head in geometry.group(j // geometry.group_size)}
    everything = units(geometry, worth[REMOVED.name], granularity)
    treatments: list[list[TreatmentName]] = [[FULL.name] * geometry.query_heads for _ in range(geometry.layers)]
    size, taken = unit_size(geometry, granularity), set[tuple[int, int]]()
    behind_exit = check_exit_layer(exit_layer, stage, geometry, protected, protect_top)
    for treatment, budget in counts.items():
        if treatment == TEXT_ONLY.name:
            rest = [head for head in behind_exit if head not in taken]
            for layer, head in rest:
                treatments[layer][head] = treatment
            taken |= set(rest)
        if not budget:
            continue
        order = _order(everything, worth[treatment], stage, select, seed)
        pool = order if select == "top" else [unit for unit in order if _is_free(unit, protected)]
        pool = [unit for unit in pool if _is_free(unit, set(avoid))]
        if treatment != REMOVED.name:
            pool = [unit for unit in pool if _is_free(unit, set(behind_exit))]
        check_budget(sum(counts.values()), stage, len(order) * size, len(pool) * size, protect_top)
        chosen = [unit for unit in pool if _is_free(unit, taken)][: budget // size]
        _refuse_protected(chosen, protected, protect_top, geometry)
        for unit in chosen:
            taken |= {(unit.layer, head) for head in unit.heads}
            for head in unit.heads:
                treatments[unit.layer][head] = treatment
    counts[TEXT_ONLY.name] = sum(row.count(TEXT_ONLY.name) for row in treatments)
    plan = PruningPlan(
        model=profile.model,
        geometry=geometry,
        profile_digest=profile.digest,
        selection=Selection(
            method=select,
            stage=stage,
            **counts_by_budget(counts),
            exit_layer=exit_layer,
            protect_top=protect_top,
            protected=sorted(protected),
            seed=seed if select == "random" else None,
            rank_by=rank_by,
        ),
        granularity=granularity,
        treatments=treatments,
        compensation=_compensation(profile, treatments, compensation),
        block_size=block_size,
        chosen_on=None if profile.dataset.pictures is None else profile.dataset,
        chat_template=TemplateRef.of_settings(profile.settings),
        image_backend=profile.image_backend,
        image_spans=rule_for(treatments),
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


def _refuse_protected(
    treated: list[Unit], protected: set[tuple[int, int]], protect_top: float, geometry: ModelGeometry
) -> None:
    for unit in treated:
        if not _is_free(unit, protected):
            group = unit.heads[0] // geometry.group_size
            whole = geometry.group_size > 1 and unit.heads == tuple(geometry.group(group))
            heads = geometry.group_name(group) if whole else f"heads {', '.join(map(str, unit.heads))}"
            raise ProtectedHeadTreated(
                f"the top heads include layer {unit.layer} {heads}, which --protect-top {protect_top:g} protects",
                expected="no protection with --select top, a control that means the very top",
                fix="give --protect-top 0",
            )


def _compensation(
    profile: HeadProfile, treatments: list[list[TreatmentName]], method: CompensationMethod
) -> Compensation:
    if method == "none":
        return Compensation()
    if profile.mean_output is None:
        raise MeansMissing(
            "the profile has no mean outputs (mean_output is null)",
            expected="a profile with mean outputs for --compensation mean",
            fix="calibrate again with mean outputs, or use --compensation none",
        )
    constant = [one.name for one in TREATMENTS.values() if not one.computed]
    return Compensation(method="mean", means=profile.mean_output[np.isin(treatments, constant)])
