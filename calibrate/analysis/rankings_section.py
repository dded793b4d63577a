"""Which ranking finds the heads that matter: the section of a comparison of rankings, where one was made.

Owns the figure. What was compared, and its words, are `calibrate.rankings.comparison`'s and `ranking_tables`'.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from calibrate.analysis.section import CsvRow, Section
from calibrate.drawing import SERIES, Drawing, new_figure, svg
from profiles.store import load_as

KINDS: Final = {"head": "heads", "kv_group": "KV groups", "group": "random groups"}


def rankings_section(path: Path) -> Section:
    """Read what `vhserve rankings` wrote, and draw it.

    Raises
    ------
    FileUnreadable, WrongVersion, MissingField, WrongValue
        And the other errors of `profiles.store.load_profile`.
    """
    # Only who has made a comparison needs its modules.
    from calibrate.rankings.results import RankingComparison
    from calibrate.rankings.tables import correlation_grid, verdict

    result: Any = load_as(RankingComparison, "vhserve.ranking-comparison", path)
    columns = ["kind", "outcome", "ranking", "n", "rho", "low", "high", "beats_random"]
    rows: list[CsvRow] = [{name: getattr(one, name) for name in columns} for one in result.correlations]
    return Section(
        name="rankings",
        title="Which ranking finds the heads that matter",
        look_for="Spearman's rank correlation of every ranking with what taking heads away costs, each head by itself "
        "and groups of heads together; 1 is the right order. Grey is what 95% of random rankings reach: a ranking "
        "within it says no more than chance. Where another ranking than the score stands first, plan by that one "
        "(`vhserve plan --rank-by`).",
        figures=[
            Drawing(
                _drawn(result),
                "Rank correlation of every ranking with measured importance, with intervals, beside random rankings",
                f"{result.samples:,} samples; 95% intervals by bootstrap of heads and samples together.",
            )
        ],
        statements=[verdict(result)],
        rows=rows,
        table=correlation_grid(result),
    )


def _drawn(result: Any) -> str:
    panels = list(dict.fromkeys((one.kind, one.outcome) for one in result.correlations))
    with new_figure(2.4 * len(panels) + 1.4, 0.9 + 0.26 * len(result.rankings)) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        places = {name: number for number, name in enumerate(result.rankings)}
        for axes, (kind, outcome) in zip(grid, panels, strict=True):
            for one in result.random:
                if (one.kind, one.outcome) == (kind, outcome) and one.low is not None and one.high is not None:
                    axes.axvspan(one.low, one.high, color="#999999", alpha=0.3, linewidth=0)
            own = [one for one in result.correlations if (one.kind, one.outcome) == (kind, outcome)]
            for one in (one for one in own if one.rho is not None):
                ends = [[one.rho - one.low], [one.high - one.rho]] if one.low is not None else None
                (colour, marker), y = SERIES[0], places[one.ranking]
                axes.errorbar([one.rho], [y], xerr=None if ends is None else np.array(ends), fmt=marker, color=colour,
                              capsize=2, markersize=4)  # fmt: skip
            axes.axvline(0, color="#555555", linewidth=0.6)
            axes.set(title=f"{KINDS[kind]}, {outcome.replace('_', '-')}", xlabel="rho", xlim=(-1.05, 1.05))
            axes.grid(axis="x", linewidth=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        grid[0].set_yticks(list(places.values()), [name.replace("_", " ") for name in places])
        grid[0].invert_yaxis()
        return svg(figure)
