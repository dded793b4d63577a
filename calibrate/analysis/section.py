"""A report's section: what every part of the analysis hands over, and its rows as CSV.

Owns the shape, so that whoever measures something new can add it to the report. Knows nothing of what is in it, nor of
the page.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibrate.ablation.tables import Grid
from calibrate.drawing import Drawing

Cell = str | int | float | bool | None
CsvRow = Mapping[str, Cell]


@dataclass(frozen=True)
class Section:
    """One analysis.

    Attributes
    ----------
    name
        What its files are called; letters and hyphens.
    title, look_for
        Heading, and a paragraph that says how to read the figures.
    figures
        May be none.
    statements
        What comes out of it, in words with numbers; a paragraph each.
    rows
        All the numbers behind the figures, each row with the same fields.
    table
        What of them is shown on the page; nothing by default.
    """

    name: str
    title: str
    look_for: str
    figures: Sequence[Drawing] = ()
    statements: Sequence[str] = ()
    rows: Sequence[CsvRow] = ()
    table: Grid | None = None


def short(cell: Cell) -> Cell:
    """A cell with six digits at most, which is more than any of these numbers is worth."""
    return float(f"{cell:.6g}") if isinstance(cell, float) else cell


def as_csv(rows: Sequence[CsvRow]) -> str:
    """Rows as RFC 4180 has them, the fields' names in the first; nothing is an empty cell."""
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows({name: short(cell) for name, cell in row.items()} for row in rows)
    return text.getvalue()
