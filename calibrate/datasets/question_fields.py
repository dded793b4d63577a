"""The fields of a user's own questions, the same in JSON lines, CSV and Parquet, and the check of each.

Owns what a record may hold and what is said of one that does not; docs/jsonl.md says it to users. Opens no file and no
image.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from calibrate.datasets.families import ALL
from calibrate.datasets.pictures import Picture
from calibrate.datasets.questions import Question
from calibrate.datasets.records import Record, shown
from calibrate.datasets.sample import Box

REQUIRED: Final = ("image", "question", "answer")
OPTIONAL: Final = ("family", "options", "box", "id")
FIELDS: Final = (*REQUIRED, *OPTIONAL)
_LISTS: Final = ("options", "box")
_BOX: Final = "[x0, y0, x1, y1] in pixels with 0 <= x0 < x1 and 0 <= y0 < y1"


def question_of(record: Record, picture: Picture) -> Question:
    """Check a record; `options` is empty where it gives none.

    Raises
    ------
    DatasetBroken
        Says which record and field.
    """
    answer = record.text("answer").strip()
    return Question(
        record=record,
        id=_id(record),
        picture=picture,
        question=record.text("question"),
        answer=answer,
        family=record.text("family") if record.data.get("family") is not None else ALL,
        options=_options(record, answer),
        box=_box(record),
    )


def from_cells(record: Record) -> Record:
    """A row of texts as a record: empty cells of optional fields are left out, lists are read from JSON.

    Raises
    ------
    DatasetBroken
        A list is no JSON.
    """
    fields: dict[str, Any] = {}
    for name in FIELDS:
        if (cell := record.data.get(name)) is None or (name in OPTIONAL and not cell.strip()):
            continue
        fields[name] = _json(record, name, cell) if name in _LISTS else cell
    return replace(record, data=fields)


def with_options(questions: list[Question]) -> list[Question]:
    """Fill in missing options with every answer that the family has in the file, in order of appearance."""
    answers: dict[str, dict[str, None]] = {}
    for one in questions:
        answers.setdefault(one.family, {})[one.answer] = None
    shared = {family: tuple(found) for family, found in answers.items()}
    return [one if one.options else replace(one, options=shared[one.family]) for one in questions]


def _json(record: Record, name: str, cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise record.unfit(name, 'a JSON list, such as ["yes", "no"] or [0, 0, 20, 10]') from None


def _id(record: Record) -> str:
    if (value := record.data.get("id")) is None:
        return f"{Path(record.file).name}:{record.number}"
    return record.text("id") if isinstance(value, str) else record.label("id")


def _options(record: Record, answer: str) -> tuple[str, ...]:
    if record.data.get("options") is None:
        return ()
    options = tuple(one.strip() for one in record.texts("options"))
    if not options or len(set(options)) < len(options):
        raise record.unfit("options", "a list of texts, each once")
    if answer not in options:
        raise record.unfit("answer", f"one of its options {shown(options)}")
    return options


def _box(record: Record) -> Box | None:
    if (value := record.data.get("box")) is None:
        return None
    box = record.box("box", value, _BOX)
    if min(box[:2]) < 0:
        raise record.unfit("box", _BOX)
    return box
