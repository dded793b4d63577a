"""The lines of a JSON-lines dataset: their fields, and the check of each.

Owns what a line may hold and what is said of one that does not. Opens no file and no image.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from calibrate.errors import DatasetBroken

REQUIRED: Final = ("image", "question", "answer")
OPTIONAL: Final = ("family", "options", "box", "id")


@dataclass(frozen=True)
class Line:
    """One checked line, number 1 being the first; `options` is empty where the line gives none."""

    number: int
    image: str
    question: str
    answer: str
    family: str
    options: tuple[str, ...]
    box: tuple[float, float, float, float] | None
    id: str


def _broken(path: Path, number: int, wrong: str, expected: str) -> DatasetBroken:
    return DatasetBroken(f"{path}: line {number}: {wrong}", expected=expected, fix="mend the line")


def read_lines(path: Path, raw: bytes) -> Iterator[Line]:
    """Check the lines of a file, of which `path` is named in errors and `raw` is the content.

    Raises
    ------
    DatasetBroken
        A line is malformed; says which line and field.
    """
    seen: dict[str, int] = {}
    for number, text in enumerate(raw.splitlines(), 1):
        if not text.strip():
            continue
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise _broken(path, number, "is not JSON", "one JSON object in UTF-8 per line") from None
        line = _checked(path, number, data)
        if line.id in seen:
            raise _broken(path, number, f"id {line.id!r} is that of line {seen[line.id]} too", "an id of its own")
        seen[line.id] = number
        yield line


def _checked(path: Path, number: int, data: Any) -> Line:
    if not isinstance(data, dict):
        raise _broken(path, number, f"is a JSON {type(data).__name__}", "an object")
    known = (*REQUIRED, *OPTIONAL)
    if unknown := sorted(data.keys() - set(known)):
        raise _broken(path, number, f"unknown field {unknown[0]!r}", f"some of {', '.join(known)}")
    if missing := [name for name in REQUIRED if name not in data]:
        raise _broken(path, number, f"field {missing[0]!r} is missing", f"the fields {', '.join(REQUIRED)}")
    texts = {name: data[name] for name in (*REQUIRED, "family", "id") if name in data}
    for name, value in texts.items():
        if not isinstance(value, str) or not value.strip():
            raise _broken(path, number, f"field {name!r} is {_shown(value)}", "a text that is not empty")
    answer = data["answer"].strip()
    return Line(
        number=number,
        image=data["image"],
        question=data["question"],
        answer=answer,
        family=data.get("family", "all"),
        options=_options(path, number, data, answer),
        box=_box(path, number, data.get("box")),
        id=data.get("id", f"{path.name}:{number}"),
    )


def _options(path: Path, number: int, data: Mapping[str, Any], answer: str) -> tuple[str, ...]:
    options = data.get("options")
    if options is None:
        return ()
    if not isinstance(options, list) or not all(isinstance(one, str) and one.strip() for one in options):
        raise _broken(path, number, f"field 'options' is {_shown(options)}", "a list of texts")
    stripped = tuple(one.strip() for one in options)
    if answer not in stripped:
        raise _broken(path, number, f"field 'answer' is {_shown(answer)}", f"one of its options {_shown(options)}")
    return stripped


def _box(path: Path, number: int, box: Any) -> tuple[float, float, float, float] | None:
    if box is None:
        return None
    numbers = isinstance(box, list) and len(box) == 4 and all(type(one) in (int, float) for one in box)
    if numbers and all(math.isfinite(one) for one in box) and 0 <= box[0] < box[2] and 0 <= box[1] < box[3]:
        return float(box[0]), float(box[1]), float(box[2]), float(box[3])
    expected = "[x0, y0, x1, y1] in pixels with 0 <= x0 < x1 and 0 <= y0 < y1"
    raise _broken(path, number, f"field 'box' is {_shown(box)}", expected)


def with_options(lines: list[Line]) -> list[Line]:
    """Fill in missing options with every answer that the family has in the file, in order of appearance."""
    answers: dict[str, dict[str, None]] = {}
    for line in lines:
        answers.setdefault(line.family, {})[line.answer] = None
    shared = {family: tuple(found) for family, found in answers.items()}
    return [line if line.options else replace(line, options=shared[line.family]) for line in lines]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
