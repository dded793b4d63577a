"""Head profiles in the terminal: a table as a coloured map, and its highest heads or KV groups.

Owns colours and marks. Does not read files or know flags; comparisons are `profile_comparison`'s.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from calibrate.terminal_tables import FoldedTable
from profiles.geometry import run_name, stage_layers, stage_of
from profiles.head_profile import HeadProfile
from profiles.names import STAGES

Floats = npt.NDArray[np.float64]

# Matplotlib's viridis, in steps: told apart by colour-blind readers.
_RISING = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
# Without colour (a pipe, a print) the mark still says how much.
_MARKS = " .:-=+*#%@"


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

    text = map_of(shares, title, _RISING, cell)
    text.append(f"{_MARKS.strip()[0]} {low:.3g}  to  {_MARKS[-1]} {high:.3g}; {units} from left to right\n")
    return text


def map_of(shares: Floats, title: str, colours: Sequence[tuple[int, int, int]], cell: Any) -> Text:
    """A row for each layer with its stage; each share, 0 to 1, `(layers, fields)`, has a colour and its `cell`."""
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
    table = FoldedTable(keys=2, title="Highest KV groups" if group_size > 1 else "Highest heads")
    for name in place_names(group_size):
        table.add_column(name, justify="right")
    table.add_column("stage")
    table.add_column("value", justify="right")
    for layer, head in highest_first(values)[:top]:
        table.add_row(*place_cells(layer, head, group_size), stage_of(layer, len(values)), f"{values[layer, head]:.4g}")
    return table


def place_names(group_size: int) -> tuple[str, ...]:
    """Columns that say which head a row is about, or which KV group of so many query heads."""
    return ("layer", "head") if group_size == 1 else ("layer", "group", "heads")


def place_cells(layer: int, place: int, group_size: int) -> tuple[str, ...]:
    """A row's cells of `place_names`; `place` is a query head, or a KV group."""
    heads = run_name(range(place * group_size, (place + 1) * group_size))
    return (str(layer), heads) if group_size == 1 else (str(layer), str(place), heads)


def table_document(profile: HeadProfile, name: str, values: Floats) -> str:
    """The table, `(layers, query heads)`, as JSON, with its profile's digest and the mean of each stage."""
    stages = {stage: values[list(stage_layers(stage, len(values)))] for stage in STAGES}
    means = {stage: float(rows.mean()) if rows.size else None for stage, rows in stages.items()}
    document = {"profile": profile.digest, "model": profile.model.name, "table": name, "stage_means": means}
    return json.dumps(document | {"values": values.tolist()}, indent=2)


def highest_first(values: Floats) -> list[tuple[int, int]]:
    """Heads, the highest first; equal ones by layer and head."""
    order = np.argsort(-values, axis=None, kind="stable")
    return [(int(place) // values.shape[1], int(place) % values.shape[1]) for place in order]
