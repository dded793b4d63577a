"""The words of the synthetic world: colours, shapes, names of regions, and every word a question may hold.

A region is a cell of the picture's grid, named like a chess square: column letter, row number, counted from the top
left corner (`a1`). Knows no picture, no question, and nothing of how words become token ids.
"""

from typing import Final

GRID: Final = 12
"""Cells along each side of the picture."""

CELL: Final = 8
"""Pixels along each side of a cell: the patch size of the demo model, so that one patch holds one object."""

SIZE: Final = GRID * CELL
"""Pixels along each side of the picture."""

CELLS: Final = GRID * GRID

COLOURS: Final = ("red", "green", "blue", "yellow")
SHAPES: Final = ("circle", "square", "triangle", "cross")
PLURALS: Final = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
MOST: Final = 7
"""The largest count that a question may ask for."""

NUMBERS: Final = tuple(str(n) for n in range(1, MOST + 1))
LETTERS: Final = ("A", "B", "C", "D")
YES_NO: Final = ("yes", "no")


def region_name(cell: int) -> str:
    """Name of a cell, counted row by row from the top left: 0 is `a1`, 143 is `l12`."""
    return f"{'abcdefghijkl'[cell % GRID]}{cell // GRID + 1}"


def region_box(cell: int) -> tuple[float, float, float, float]:
    """Pixel coordinates `(x0, y0, x1, y1)` of a cell; the right and lower edges are exclusive."""
    x, y = cell % GRID * CELL, cell // GRID * CELL
    return float(x), float(y), float(x + CELL), float(y + CELL)


REGIONS: Final = tuple(region_name(cell) for cell in range(CELLS))

_PHRASES = (
    "How many are there ? things of any colour like the one in region",
    "Is there a in the picture ? What colour shape is",
    ". , : !",
)

WORDS: Final = tuple(
    dict.fromkeys(
        (
            *" ".join(_PHRASES).split(),
            *COLOURS,
            *SHAPES,
            *PLURALS.values(),
            *NUMBERS,
            *LETTERS,
            *YES_NO,
            *REGIONS,
        )
    )
)
"""Every word and punctuation mark that questions, options and answers are made of, without repeats."""
