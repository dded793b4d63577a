"""The picture of the treatments: every square against the definitions."""

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from profiles.treatments import TREATMENTS, Phase

PICTURE = Path(__file__).parents[3] / "docs" / "images" / "treatments.svg"
REPLY = 500
"""Left edge of the reply's half, in the picture's units."""


def rows() -> dict[str, dict[Phase, list[tuple[str, bool]]]]:
    """By treatment and phase, each square from the left: its letter, and whether it is kept."""
    names: dict[float, str] = {}
    letters: dict[float, dict[float, str]] = defaultdict(dict)
    squares: dict[float, dict[float, bool]] = defaultdict(dict)
    for element in ElementTree.parse(PICTURE).getroot():
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        if element.get("font-family") == "monospace":
            names[y] = element.text or ""
        elif element.get("text-anchor") == "middle":
            letters[y][x - 13] = element.text or ""
        elif element.get("stroke"):
            squares[y + 18][x] = element.get("stroke-dasharray") is None
    assert set(names) == set(letters) == set(squares)
    phases: dict[Phase, tuple[float, float]] = {"prompt": (0, REPLY), "reply": (REPLY, 1000)}
    return {
        names[y]: {
            phase: [(letters[y][x], kept) for x, kept in sorted(squares[y].items()) if low < x < high]
            for phase, (low, high) in phases.items()
        }
        for y in names
    }


ROWS = rows()


def test_every_family_is_drawn() -> None:
    alone = {name for name in TREATMENTS if ":" not in name}
    families = {name.partition(":")[0] for name in TREATMENTS if ":" in name}
    assert alone <= set(ROWS) <= set(TREATMENTS)
    assert {name.partition(":")[0] for name in ROWS if ":" in name} == families


@pytest.mark.parametrize("phase", ["prompt", "reply"])
@pytest.mark.parametrize("name", ROWS)
def test_squares_are_kept_as_the_treatment_says(name: str, phase: Phase) -> None:
    treatment, squares = TREATMENTS[name], ROWS[name][phase]
    assert "".join(letter for letter, _ in squares) == "TT" + 8 * "I" + "TT" + ("RRR" if phase == "reply" else "")
    image = [kept for letter, kept in squares if letter == "I"]
    assert image == [treatment.kept(phase).has(number) for number in range(8)]
    assert {kept for letter, kept in squares if letter != "I"} == {treatment.computed}
