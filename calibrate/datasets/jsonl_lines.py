"""The lines of a JSON-lines dataset: their fields, and the check of each.

Owns what a line may hold and what is said of one that does not. Opens no file and no image.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from calibrate.datasets.pictures import FilePicture
from calibrate.datasets.questions import Question
from calibrate.datasets.records import Record, json_lines, shown
from calibrate.datasets.sample import Box

REQUIRED: Final = ("image", "question", "answer")
OPTIONAL: Final = ("family", "options", "box", "id")
_BOX: Final = "[x0, y0, x1, y1] in pixels with 0 <= x0 < x1 and 0 <= y0 < y1"


def read_lines(path: Path, raw: bytes) -> Iterator[Question]:
    """Check the lines of a file, of which `path` is named in errors and `raw` is the content.

    `options` is empty where a line gives none.

    Raises
    ------
    DatasetBroken
        A line is malformed; says which line and field.
    """
    for line in json_lines(path, raw):
        yield _checked(path, line)


def _checked(path: Path, line: Record) -> Question:
    known = (*REQUIRED, *OPTIONAL)
    if unknown := sorted(line.data.keys() - set(known)):
        raise line.broken(f"unknown field {unknown[0]!r}", f"some of {', '.join(known)}")
    answer = line.text("answer").strip()
    return Question(
        record=line,
        id=line.text("id") if "id" in line.data else f"{path.name}:{line.number}",
        picture=FilePicture(line.text("image"), (path.parent,)),
        question=line.text("question"),
        answer=answer,
        family=line.text("family") if "family" in line.data else "all",
        options=_options(line, answer),
        box=_box(line),
    )


def _options(line: Record, answer: str) -> tuple[str, ...]:
    if line.data.get("options") is None:
        return ()
    options = line.texts("options")
    if answer not in options:
        raise line.unfit("answer", f"one of its options {shown(options)}")
    return options


def _box(line: Record) -> Box | None:
    value = line.data.get("box")
    if value is None:
        return None
    box = line.box("box", value, _BOX)
    if min(box[:2]) < 0:
        raise line.unfit("box", _BOX)
    return box


def with_options(questions: list[Question]) -> list[Question]:
    """Fill in missing options with every answer that the family has in the file, in order of appearance."""
    answers: dict[str, dict[str, None]] = {}
    for one in questions:
        answers.setdefault(one.family, {})[one.answer] = None
    shared = {family: tuple(found) for family, found in answers.items()}
    return [one if one.options else replace(one, options=shared[one.family]) for one in questions]
