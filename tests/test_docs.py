"""Documentation that cannot drift: tables against the code, and every command against the command line."""

import re
import shlex
from pathlib import Path

import pytest

from vhserve.command_line import Vhserve
from vhserve.commands.flags import all_commands, passes_flags_on
from vhserve.commands.flags import flags as flags_of
from vhserve.server.metric_definitions import DEFINITIONS, table

ROOT = Path(__file__).parents[1]
TOP = ("profiles", "calibrate", "vhserve")
COMMANDS = dict(all_commands(Vhserve))
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def test_the_table_of_metrics_is_the_code_s() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert table() in page
    assert set(re.findall(r"`(vhserve_\w+)`", page)) == set(DEFINITIONS)


def test_the_drawing_of_the_house_shows_every_room_once() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawing = re.search(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert drawing is not None
    rooms = re.findall(r'^ +([\w.]+)\["([\w/]+)<br>', drawing[1], re.MULTILINE)
    assert all(name == path.replace("/", ".") for name, path in rooms)
    packages = {
        ".".join(file.parent.relative_to(ROOT).parts) for top in TOP for file in (ROOT / top).rglob("__init__.py")
    }
    assert sorted(name for name, _ in rooms) == sorted(packages - set(TOP))  # the three themselves frame the others
    named = {name for name, _ in rooms} | set(re.findall(r"^ +(\w+)[(\[]", drawing[1], re.MULTILINE))
    arrows = [line for line in drawing[1].splitlines() if "-->" in line]
    assert {end.strip() for line in arrows for end in re.split("-->|&", line)} == named, "a room without an arrow"
    for room in re.findall(r"`((?:profiles|calibrate|vhserve|tests)/[\w/]+)`", page):
        assert (ROOT / room).is_dir(), room


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = re.sub(r" \\\n +", " ", page.read_text())  # commands that go on in the next line
        for line in re.findall(r"^ {4}(?:\.venv/bin/)?(vhserve .*?)(?:\s{2,}#.*)?$", text, re.MULTILINE):
            found.append((page.name, line.split("  #")[0].strip()))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_of_the_docs_parses(page: str, line: str) -> None:
    words = shlex.split(re.sub(r"\[.*?\]", "", line))[1:]
    command = max((names for names in COMMANDS if words[: len(names)] == list(names)), key=len)
    known = set(flags_of(COMMANDS[command]))
    flags = {word.split("=")[0] for word in words if word.startswith("-")}
    if not passes_flags_on(COMMANDS[command]):
        assert flags <= known, f"{page}: {flags - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_target_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"^ {4}make (.*?)(?:#.*)?$", text, re.MULTILINE):
        assert set(line.split()) <= targets, f"{page.name}: make {line}"
