"""Two tables of head profiles compared: correlations, what has moved, and a map of it.

Owns the numbers of a comparison and how they are shown. Does not read files or know flags.
"""

from collections.abc import Sequence
from math import isnan
from typing import Any, Final

import numpy as np
from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from calibrate.terminal_tables import FoldedTable
from profiles.geometry import stage_layers
from profiles.head_profile import HeadProfile
from profiles.names import STAGES
from vhserve.report.profile_views import Floats, highest_first, map_of, place_cells, place_names

# A blue-white-orange scale, in steps: told apart by colour-blind readers.
_DIVERGING: Final = ((0, 114, 178), (120, 180, 215), (240, 240, 240), (235, 160, 100), (213, 94, 0))
_LESS_MORE: Final = "-~ +#"


def difference_map(first: Floats, second: Floats, units: str = "heads") -> Text:
    """Second minus first, of ranks: how many places each head has moved, as a share of all heads.

    Parameters
    ----------
    first, second
        `(layers, heads)`, in any unit: only their order counts.
    units
        What the columns are.
    """
    moved = (_ranks(second) - _ranks(first)) / max(first.size - 1, 1)
    widest = float(np.abs(moved).max()) or 1.0

    def cell(share: float) -> str:
        return 2 * _LESS_MORE[min(int(share * len(_LESS_MORE)), len(_LESS_MORE) - 1)]

    text = map_of(
        (moved / widest + 1) / 2, "ranked higher by the second (orange, #), or lower (blue, -)", _DIVERGING, cell
    )
    text.append(f"at most {100 * widest:.0f}% of all places; {units} from left to right\n")
    return text


class Comparison(BaseModel):
    """Two tables of heads, or of KV groups.

    Attributes
    ----------
    heads_together
        Query heads of what is compared: 1 for heads, those of a KV group for groups. With groups, `heads`, `top` and
        `common` count groups, and `head` of `moved` is `[layer, KV head]`.
    spearman, pearson
        Correlation of ranks, and of values; None where either table has one value only.
    by_stage
        Spearman's within each stage.
    top, common
        How many of the highest heads were looked at, and how many of them both tables have.
    moved
        Heads that have moved most: `[layer, head]`, value and rank in each; rank 1 is the highest.
    """

    models: tuple[str, str]
    revisions_agree: bool
    tables: tuple[str, str]
    heads: int
    heads_together: int
    spearman: float | None
    pearson: float | None
    by_stage: dict[str, float | None]
    top: int
    common: int
    moved: list[dict[str, Any]]


def compared(
    profiles: Sequence[HeadProfile],
    names: tuple[str, str],
    first: Floats,
    second: Floats,
    top: int,
    heads_together: int = 1,
) -> Comparison:
    """Compare two tables of one shape.

    Parameters
    ----------
    profiles, names
        Where both tables come from, and what they are called there.
    first, second
        `(layers, query heads)`, or `(layers, KV heads)`.
    top
        How many of the highest heads, and of those that have moved most, to look at.
    heads_together
        Query heads of what is compared.
    """
    ranks = _ranks(first), _ranks(second)
    places = highest_first(np.abs(ranks[1] - ranks[0]))[:top]
    stages = {stage: list(stage_layers(stage, len(first))) for stage in STAGES}
    return Comparison(
        models=(profiles[0].model.name, profiles[1].model.name),
        revisions_agree=profiles[0].model.revision == profiles[1].model.revision,
        tables=names,
        heads=first.size,
        heads_together=heads_together,
        spearman=_correlation(*ranks),
        pearson=_correlation(first, second),
        by_stage={
            stage: _correlation(_ranks(first[rows]), _ranks(second[rows])) if rows else None
            for stage, rows in stages.items()
        },
        top=min(top, first.size),
        common=len(set(highest_first(first)[:top]) & set(highest_first(second)[:top])),
        moved=[
            {
                "head": list(place),
                "values": [float(first[place]), float(second[place])],
                "ranks": [first.size - float(ranks[0][place]) + 1, first.size - float(ranks[1][place]) + 1],
            }
            for place in places
            if ranks[0][place] != ranks[1][place]
        ],
    )


def difference_table(comparison: Comparison) -> Table | str:
    """The correlations in the title, and the heads that have moved most; the title alone where none has."""
    by_stage = ", ".join(f"{stage} {_signed(rho)}" for stage, rho in comparison.by_stage.items())
    size = comparison.heads_together
    of = "" if size == 1 else " KV groups"
    title = (
        f"Spearman {_signed(comparison.spearman)} ({by_stage}), Pearson {_signed(comparison.pearson)}, "
        f"n = {comparison.heads}{of}; of the {comparison.top} highest {comparison.common} in common"
    )
    if not comparison.moved:
        return f"{title}; none has moved"
    table = FoldedTable(keys=2, title=title)
    for name in (*place_names(size), "first", "second", "rank, first", "rank, second"):
        table.add_column(name, justify="right")
    for one in comparison.moved:
        values, ranks = (f"{value:.4g}" for value in one["values"]), (f"{rank:g}" for rank in one["ranks"])
        layer, place = one["head"]
        table.add_row(*place_cells(layer, place, size), *values, *ranks)
    return table


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, the lowest; equal values share their mean rank."""
    from scipy.stats import rankdata  # not above: `profile show`, which compares nothing, would wait for it

    ranks: Floats = rankdata(values, axis=None).reshape(values.shape)
    return ranks


def _correlation(x: Floats, y: Floats) -> float | None:
    from calibrate.stats.correlation import pearson

    r = float(pearson(x.ravel(), y.ravel()))
    return None if isnan(r) else r
