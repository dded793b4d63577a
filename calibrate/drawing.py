"""What all figures have in common: colours and marks, told apart by colour-blind readers and in print, and SVG text.

Owns the style and the finished drawing. Knows matplotlib and nothing of what is drawn; no pyplot, so that no figure
outlives its call.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito's palette: "Color universal design" (2008).
SERIES: Final = (
    ("#0072b2", "o"),
    ("#d55e00", "s"),
    ("#009e73", "^"),
    ("#cc79a7", "D"),
    ("#56b4e9", "v"),
    ("#e69f00", "P"),
    ("#000000", "X"),
    ("#777777", "*"),
)
"""Colour and marker of the first, second, … series."""

_PLACES: Final = re.compile(r' (?:d|x|y)="[^"]*"')
_LONG: Final = re.compile(r"(\.\d\d)\d+")

_STYLE: Final[Any] = {
    "svg.hashsalt": "vhserve",
    "svg.fonttype": "path",
    "text.parse_math": False,
    "hatch.linewidth": 0.6,
    "font.size": 9,
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure as SVG, what it shows for those who don't see it, and its caption, if any."""

    svg: str
    alt: str
    caption: str = ""


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure, sizes in inches, in the common style; to be drawn and turned into SVG inside the block."""
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure) -> str:
    """The figure as SVG; the same figure gives the same text. Places are rounded to a hundredth of a point."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=200)  # of pictures within it; the rest is lines
    return _PLACES.sub(lambda places: _LONG.sub(r"\1", places[0]), buffer.getvalue())
