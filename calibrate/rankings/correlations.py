"""Rank correlations of a profile's rankings with what heads cost when they were taken away, beside random rankings.

Owns the correlations with their bootstrap intervals. Does not know how anything was measured; where rankings come from
is `profiles.planning.rankings`'.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from calibrate.masking.masked_runs import Answers
from calibrate.rankings.results import AblatedUnit, Correlation, LossMeasure, RandomRankings
from calibrate.stats.rank_correlation import bootstrap, spearman
from profiles.errors import RankingMissing
from profiles.head_profile import HeadProfile
from profiles.names import KNOWN_RANKINGS, Treated
from profiles.planning.rankings import Table, group_ranking, ranking_names

Floats = npt.NDArray[np.float64]
RANDOM_ORDERS: Final = 1000
"""How many random rankings there are to compare with."""


def tables_of(profile: HeadProfile, treatment: Treated) -> tuple[dict[str, Table], dict[str, str]]:
    """The profile's rankings by name, and why the others are not there.

    Returns
    -------
    Tables `(layers, KV heads)`, higher = keep: what KV groups are worth, which in a multi-head model are heads.
    """
    tables: dict[str, Table] = {}
    absent: dict[str, str] = {}
    for name in dict.fromkeys((*KNOWN_RANKINGS, *ranking_names(profile))):
        try:
            tables[name] = group_ranking(profile, name, treatment)
        except RankingMissing as error:
            absent[name] = error.wrong
    if "gradient" in tables:
        # As Michel et al. rank: each layer's importance divided by its Euclidean norm.
        norm = np.linalg.norm(tables["gradient"], axis=1, keepdims=True)
        tables["gradient_by_layer"] = tables["gradient"] / np.where(norm > 0, norm, 1.0)
    return tables, absent


def correlations(
    tables: Mapping[str, Table],
    taken: Mapping[AblatedUnit, Sequence[Sequence[tuple[int, int]]]],
    answers: Answers,
    seed: int,
) -> tuple[list[Correlation], list[RandomRankings]]:
    """Compare rankings with what was measured.

    Parameters
    ----------
    tables
        Rankings by name, each `(layers, KV heads)`, higher = keep.
    taken
        Units `(layer, KV head)` taken away, by kind, in the order of the variants of `answers`. What a ranking says of
        several is the mean of what it says of each.
    seed
        Of the bootstrap and of the random rankings.
    """
    found: list[Correlation] = []
    random: list[RandomRankings] = []
    start = 0
    for kind, groups in taken.items():
        rows = slice(1 + start, 1 + start + len(groups))
        start += len(groups)
        said = {name: _of_groups(table, groups) for name, table in tables.items()}
        measured: dict[LossMeasure, Floats] = {
            "log_odds": answers.log_odds,
            "accuracy": answers.right.astype(np.float64),
        }
        for outcome, values in measured.items():
            losses = values[0] - values[rows]
            null = _random_rhos(tables, groups, losses.mean(1), seed)
            random.append(_random(kind, outcome, null))
            found += _ranked(kind, outcome, said, losses, null, seed)
    return found, random


def _ranked(
    kind: AblatedUnit, outcome: LossMeasure, said: Mapping[str, Floats], losses: Floats, null: Floats, seed: int
) -> list[Correlation]:
    whole = {name: float(spearman(one, losses.mean(1))) for name, one in said.items()}
    known = {name: rho for name, rho in whole.items() if np.isfinite(rho)}
    again = bootstrap(np.stack(list(said.values())), losses, seed)  # (resamples, rankings)
    again_of = dict(zip(said, again.T, strict=True))
    best = max(known, key=lambda name: known[name]) if known else None
    threshold = np.nanquantile(null, 0.975) if np.isfinite(null).any() else np.inf
    found = []
    for name, rho in whole.items():
        exists = name in known
        low, high = _interval(again_of[name]) if exists else (None, None)
        behind = _interval(again_of[best] - again_of[name]) if exists and best else (None, None)
        found.append(
            Correlation(
                ranking=name,
                kind=kind,
                outcome=outcome,
                n=len(losses),
                rho=rho if exists else None,
                low=low,
                high=high,
                behind_best=known[best] - rho if exists and best else None,
                behind_best_low=behind[0],
                behind_best_high=behind[1],
                beats_random=bool(exists and rho > threshold),
            )
        )
    return found


def _interval(values: Floats) -> tuple[float | None, float | None]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)


def _of_groups(table: Table, groups: Sequence[Sequence[tuple[int, int]]]) -> Floats:
    return np.array([np.mean([table[head] for head in heads]) for heads in groups])


def _random_rhos(
    tables: Mapping[str, Table], groups: Sequence[Sequence[tuple[int, int]]], losses: Floats, seed: int
) -> Floats:
    rng = np.random.default_rng([seed, 1])
    shape = next(iter(tables.values())).shape
    tables_by_chance = rng.random((RANDOM_ORDERS, *shape))
    said = [tables_by_chance[:, [i for i, _ in heads], [j for _, j in heads]].mean(1) for heads in groups]
    return spearman(np.stack(said, axis=1), losses)


def _random(kind: AblatedUnit, outcome: LossMeasure, null: Floats) -> RandomRankings:
    low, high = _interval(null)
    mean = float(null[np.isfinite(null)].mean()) if low is not None else None
    return RandomRankings(kind=kind, outcome=outcome, mean=mean, low=low, high=high)
