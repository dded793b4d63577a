"""The table of docs/families.md: every cell is a test that exists, or says why there is none."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_families import FAMILIES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
WITHOUT = ("\N{EN DASH}", "takes none")
"""What a cell may say that names no test."""


def table(first: str) -> list[list[str]]:
    """Rows of the table whose first heading is this."""
    found = re.search(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def named_by(cell: str) -> str:
    """A test by its file's name, which no other has, as pytest names it."""
    name, test = cell.strip("`").split("::")
    (file,) = (ROOT / "tests").rglob(name)
    return f"{file.relative_to(ROOT)}::{test}"


MARKS = {mark: named_by(test) for mark, test, _ in table("mark")}
REFUSED = {what: named_by(test) for what, test in table("what")}
# A family that is refused has no name in the tests.
ROWS = [*table("family"), *([family, "", *cells] for family, _, *cells in table("refused"))]
CELLS = [
    pytest.param(name, cell, id=f"{family}, {number}")
    for family, name, *cells in ROWS
    for number, cell in enumerate(cells)
]


def named() -> set[str]:
    """Tests that the page names."""
    marked = {
        MARKS[mark].replace("{name}", name)
        for _, name, *cells in ROWS
        for cell in cells
        for mark in re.findall(r"\[(\w+)\]", cell)
    }
    return marked | set(REFUSED.values())


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Names of all tests in the files that the page names."""
    files = sorted({test.split("::")[0] for test in named()})
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    return {line for line in done.stdout.splitlines() if "::" in line}


def test_every_family_of_the_tests_has_a_row() -> None:
    assert FAMILIES.keys() <= {name for _, name, *_ in table("family")}


@pytest.mark.parametrize(("name", "cell"), CELLS)
def test_a_cell_is_a_test_or_says_why_not(name: str, cell: str) -> None:
    marks = re.findall(r"\[(\w+)\]", cell)
    assert set(marks) <= MARKS.keys()
    rest = re.sub(r"\[\w+\]", "", cell).strip()
    assert rest in ({"", "takes none", ", takes none on CPUs"} if marks else WITHOUT)
    assert all("{name}" not in MARKS[mark] or name in FAMILIES or mark in {"C1", "Q1", "A"} for mark in marks)


def test_every_test_that_the_page_names_exists(collected: set[str]) -> None:
    assert named() - collected == set()
    assert len(named()) > 50


def test_every_mark_is_used() -> None:
    assert set(re.findall(r"\[(\w+)\]", " ".join(cell for row in ROWS for cell in row))) == MARKS.keys()
