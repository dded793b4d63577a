"""Two endpoints compared: the order of their turns, and the ratios with their spread.

Owns the order A B, B A, A B, …, so that a machine that drifts treats both alike. Knows figures, no requests.
"""

from collections.abc import Sequence
from statistics import median

from vhserve.loadtest.conditions import COUNTS, LATENCIES, value_of
from vhserve.loadtest.results import LoadFigures, Ratio

COMPARED = (
    *(
        f"{statistic}_{latency}"
        for latency in LATENCIES
        if latency != "lag"
        for statistic in ("mean", "p50", "p90", "p95", "p99", "max")
    ),
    *(name for name in COUNTS if name.endswith("_per_second")),
)
"""Figures that have a ratio."""


def order(endpoints: int, rounds: int) -> list[int]:
    """Which endpoint has each turn: `0 1 1 0 0 1 …`; with one endpoint a single turn."""
    if endpoints == 1:
        return [0]
    return [at for number in range(rounds) for at in ((0, 1) if number % 2 == 0 else (1, 0))]


def ratios(first: LoadFigures, second: LoadFigures, turns: Sequence[tuple[LoadFigures, LoadFigures]]) -> list[Ratio]:
    """Second over first, of all requests and of each round; figures that either lacks, or that are zero, are left out.

    Parameters
    ----------
    first, second
        Figures of all turns.
    turns
        Of each round, the first endpoint's turn and the second's.
    """
    found = []
    for name in COMPARED:
        pooled = _ratio(first, second, name)
        rounds = [ratio for pair in turns if (ratio := _ratio(*pair, name)) is not None]
        if pooled is not None and len(rounds) == len(turns):
            found.append(
                Ratio(
                    figure=name, pooled=pooled, median=median(rounds), low=min(rounds), high=max(rounds), rounds=rounds
                )
            )
    return found


def _ratio(first: LoadFigures, second: LoadFigures, name: str) -> float | None:
    a, b = value_of(first, name), value_of(second, name)
    return b / a if a and b is not None else None
