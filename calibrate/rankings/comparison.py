"""The run that compares rankings of heads with what heads cost when they are taken away.

Heads, or KV groups of a grouped-query model, are taken away each alone, and several together (`groups`). Correlations
are `correlations`', the passes `calibrate.masking.masked_runs`'.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from calibrate.datasets import Dataset
from calibrate.masking.masked_runs import Answers, MaskedRunSettings, answer_variants, masked_run_identity
from calibrate.masking.prefix_sharing import Variant
from calibrate.models.loading import LoadedModel
from calibrate.rankings.correlations import correlations, tables_of
from calibrate.rankings.groups import HeadGroups, draw_groups
from calibrate.rankings.results import AblatedUnit, RankingComparison, Taken
from calibrate.runs.interrupts import defer_signals
from calibrate.runs.loop import ResumableLoop
from calibrate.runs.settings import execution
from profiles.geometry import ModelGeometry
from profiles.head_profile import HeadProfile
from profiles.names import Treated
from profiles.overlap import shared_pictures
from profiles.provenance import git_commit, versions
from profiles.store import save


def compare_rankings(
    loaded: LoadedModel,
    profile: HeadProfile,
    dataset: Dataset,
    treatment: Treated,
    groups: HeadGroups,
    run: MaskedRunSettings,
) -> RankingComparison:
    """Measure what every head, or KV group, and every random group is worth, and compare the profile's rankings.

    Writes the results.

    Continues an interrupted run of the same settings.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    BudgetTooLarge
        Groups are as large as the model.
    StateMismatch, OutOfDeviceMemory, DatasetBroken, FileUnwritable
    """
    geometry = loaded.geometry
    alone = [[(layer, unit)] for layer in range(geometry.layers) for unit in range(geometry.kv_heads)]
    drawn = draw_groups(geometry, groups)
    identity: dict[str, Any] = {"treatment": treatment, "groups": [groups.number, groups.size, groups.seed]}
    if geometry.group_size > 1:
        identity["unit"] = "kv_group"
    loop = ResumableLoop(loaded, dataset, run, masked_run_identity(profile, run) | identity)
    variants = [Variant(_treatments(geometry, units, treatment)) for units in [*alone, *drawn]]
    with defer_signals() as interrupts:
        answers = answer_variants(loop, variants, run, interrupts, "taking heads away")
        result = _result(loaded, profile, dataset, treatment, groups, run, answers, alone, drawn)
        save(result, run.out)
        loop.discard_state()
    return result


def _heads(geometry: ModelGeometry, units: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Query heads of units ``(layer, KV head)``."""
    return [(layer, head) for layer, kv_head in units for head in geometry.group(kv_head)]


def _treatments(geometry: ModelGeometry, units: Sequence[tuple[int, int]], treatment: Treated) -> list[list[str]]:
    rows = [["full"] * geometry.query_heads for _ in range(geometry.layers)]
    for layer, head in _heads(geometry, units):
        rows[layer][head] = treatment
    return rows


def _taken(
    geometry: ModelGeometry, groups: Sequence[Sequence[tuple[int, int]]], answers: Answers, start: int
) -> list[Taken]:
    rows = slice(1 + start, 1 + start + len(groups))
    odds = (answers.log_odds[0] - answers.log_odds[rows]).mean(1)
    right = (answers.right[0].astype(np.float64) - answers.right[rows]).mean(1)
    return [
        Taken(heads=[list(head) for head in _heads(geometry, units)], log_odds=float(lost), accuracy=float(wrong))
        for units, lost, wrong in zip(groups, odds, right, strict=True)
    ]


def _result(
    loaded: LoadedModel,
    profile: HeadProfile,
    dataset: Dataset,
    treatment: Treated,
    groups: HeadGroups,
    run: MaskedRunSettings,
    answers: Answers,
    alone: list[list[tuple[int, int]]],
    drawn: list[list[tuple[int, int]]],
) -> RankingComparison:
    tables, absent = tables_of(profile, treatment)
    geometry = loaded.geometry
    single: AblatedUnit = "head" if geometry.group_size == 1 else "kv_group"
    found, random = correlations(tables, {single: alone, "group": drawn}, answers, groups.seed)
    return RankingComparison(
        model=loaded.ref,
        profile_digest=profile.digest,
        dataset=dataset.ref(),
        samples=len(answers.samples),
        broken=list(dataset.broken),
        treatment=treatment,
        block_size=run.block_size,
        accuracy=float(answers.right[0].mean()),
        heads=_taken(geometry, alone, answers, 0),
        groups=_taken(geometry, drawn, answers, len(alone)),
        rankings=list(tables),
        absent=absent,
        correlations=found,
        random=random,
        settings={
            **execution(loaded),
            "batch_size": run.batch_size,
            "group_size": groups.size,
            "seed": groups.seed,
            "shared_pictures": shared_pictures(profile.dataset, dataset.ref()),
        },
        versions=versions("vhserve", "torch", "transformers", "numpy"),
        commit=git_commit(),
    )
