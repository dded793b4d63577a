"""Head profiles in the terminal: a table as a coloured map, and two tables compared.

Owns colours, marks and the numbers of a comparison. Does not read files or know flags.
"""

import json
from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from calibrate.terminal_tables import FoldedTable
from profiles.geometry import run_name, stage_layers, stage_of
from profiles.head_profile import HeadProfile
from profiles.names import STAGES

Floats = npt.NDArray[np.float64]

# Matplotlib's viridis and a blue-white-orange scale, in steps: told apart by colour-blind readers.
_RISING = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_DIVERGING = ((0, 114, 178), (120, 180, 215), (240, 240, 240), (235, 160, 100), (213, 94, 0))
# Without colour (a pipe, a print) the mark still says how much.
_MARKS = " .:-=+*#%@"
_LESS_MORE = "-~ +#"


def head_map(values: Floats, title: str, *, numbers: bool = False, units: str = "heads") -> Text:
    """A row for each layer, two characters for each head: colour, and a mark for eyes without colour.

    Parameters
    ----------
    values
        `(layers, heads)`; the highest is the brightest.
    numbers
        Write per cent of the highest instead of marks, three characters for each head.
    units
        What the columns are.
    """
    low, high = min(float(values.min()), 0.0), float(values.max())
    shares = (values - low) / (high - low) if high > low else np.zeros_like(values)

    def cell(share: float) -> str:
        return f"{100 * share:3.0f}" if numbers else 2 * _MARKS[min(int(share * len(_MARKS)), len(_MARKS) - 1)]

    text = _map(shares, title, _RISING, cell)
    text.append(f"{_MARKS.strip()[0]} {low:.3g}  to  {_MARKS[-1]} {high:.3g}; {units} from left to right\n")
    return text


def difference_map(first: Floats, second: Floats) -> Text:
    """Second minus first, of ranks: how many places each head has moved, as a share of all heads.

    Parameters
    ----------
    first, second
        `(layers, query heads)`, in any unit: only their order counts.
    """
    moved = (_ranks(second) - _ranks(first)) / max(first.size - 1, 1)
    widest = float(np.abs(moved).max()) or 1.0

    def cell(share: float) -> str:
        return 2 * _LESS_MORE[min(int(share * len(_LESS_MORE)), len(_LESS_MORE) - 1)]

    text = _map(
        (moved / widest + 1) / 2, "ranked higher by the second (orange, #), or lower (blue, -)", _DIVERGING, cell
    )
    text.append(f"at most {100 * widest:.0f}% of all places; heads from left to right\n")
    return text


def _map(shares: Floats, title: str, colours: Sequence[tuple[int, int, int]], cell: Any) -> Text:
    text = Text(f"{title}\n")
    layers = len(shares)
    for layer in range(layers):
        stage = stage_of(layer, layers)
        first = layer == stage_layers(stage, layers)[0]
        text.append(f"{stage if first else '':>6} {layer:3d} ")
        for share in shares[layer].tolist():
            red, green, blue = _colour(share, colours)
            ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 128 else "white"
            text.append(cell(share), style=f"{ink} on rgb({red},{green},{blue})")
        text.append("\n")
    return text


def _colour(share: float, colours: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    place = min(max(share, 0.0), 1.0) * (len(colours) - 1)
    below = min(int(place), len(colours) - 2)
    red, green, blue = (
        round(a + (b - a) * (place - below)) for a, b in zip(colours[below], colours[below + 1], strict=True)
    )
    return red, green, blue


def heads_table(values: Floats, top: int, group_size: int = 1) -> Table:
    """The `top` highest heads of `(layers, heads)`, with their stage and value.

    Parameters
    ----------
    group_size
        Above 1, `values` are of KV groups of so many query heads, `(layers, KV heads)`.
    """
    grouped = group_size > 1
    table = FoldedTable(keys=2, title="Highest KV groups" if grouped else "Highest heads")
    for name in ("layer", "group", "heads") if grouped else ("layer", "head"):
        table.add_column(name, justify="right")
    table.add_column("stage")
    table.add_column("value", justify="right")
    for layer, head in _order(values)[:top]:
        heads = [run_name(range(head * group_size, (head + 1) * group_size))] if grouped else []
        table.add_row(str(layer), str(head), *heads, stage_of(layer, len(values)), f"{values[layer, head]:.4g}")
    return table


def table_document(profile: HeadProfile, name: str, values: Floats) -> str:
    """The table, `(layers, query heads)`, as JSON, with its profile's digest and the mean of each stage."""
    stages = {stage: values[list(stage_layers(stage, len(values)))] for stage in STAGES}
    means = {stage: float(rows.mean()) if rows.size else None for stage, rows in stages.items()}
    document = {"profile": profile.digest, "model": profile.model.name, "table": name, "stage_means": means}
    return json.dumps(document | {"values": values.tolist()}, indent=2)


class Comparison(BaseModel):
    """Two tables of heads.

    Attributes
    ----------
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
    spearman: float | None
    pearson: float | None
    by_stage: dict[str, float | None]
    top: int
    common: int
    moved: list[dict[str, Any]]


def compared(
    profiles: Sequence[HeadProfile], names: tuple[str, str], first: Floats, second: Floats, top: int
) -> Comparison:
    """Compare two tables of one shape.

    Parameters
    ----------
    profiles, names
        Where both tables come from, and what they are called there.
    first, second
        `(layers, query heads)`.
    top
        How many of the highest heads, and of those that have moved most, to look at.
    """
    ranks = _ranks(first), _ranks(second)
    places = _order(np.abs(ranks[1] - ranks[0]))[:top]
    stages = {stage: list(stage_layers(stage, len(first))) for stage in STAGES}
    return Comparison(
        models=(profiles[0].model.name, profiles[1].model.name),
        revisions_agree=profiles[0].model.revision == profiles[1].model.revision,
        tables=names,
        heads=first.size,
        spearman=_correlation(*ranks),
        pearson=_correlation(first, second),
        by_stage={
            stage: _correlation(_ranks(first[rows]), _ranks(second[rows])) if rows else None
            for stage, rows in stages.items()
        },
        top=min(top, first.size),
        common=len(set(_order(first)[:top]) & set(_order(second)[:top])),
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


def difference_table(comparison: Comparison) -> Table:
    """The correlations in the title, and the heads that have moved most."""
    by_stage = ", ".join(f"{stage} {_signed(rho)}" for stage, rho in comparison.by_stage.items())
    title = (
        f"Spearman {_signed(comparison.spearman)} ({by_stage}), Pearson {_signed(comparison.pearson)}, "
        f"n = {comparison.heads}; of the {comparison.top} highest {comparison.common} in common"
    )
    table = FoldedTable(keys=2, title=title)
    for name in ("layer", "head", "first", "second", "rank, first", "rank, second"):
        table.add_column(name, justify="right")
    for one in comparison.moved:
        values, ranks = (f"{value:.4g}" for value in one["values"]), (f"{rank:g}" for rank in one["ranks"])
        table.add_row(*map(str, one["head"]), *values, *ranks)
    return table


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _order(values: Floats) -> list[tuple[int, int]]:
    """Heads, the highest first; equal ones by layer and head."""
    order = np.argsort(-values, axis=None, kind="stable")
    return [(int(place) // values.shape[1], int(place) % values.shape[1]) for place in order]


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, the lowest; equal values share their mean rank."""
    from scipy.stats import rankdata  # not above: `profile show`, which compares nothing, would wait for it

    ranks: Floats = rankdata(values, axis=None).reshape(values.shape)
    return ranks


def _correlation(x: Floats, y: Floats) -> float | None:
    from calibrate.stats.correlation import pearson

    r = float(pearson(x.ravel(), y.ravel()))
    return None if isnan(r) else r
