"""JSON as datasets are published in it: one document with a list of records, or one record per line.

Owns what a file must be to be read at all, and its faults: no UTF-8, no JSON, a field that stands twice. Knows no
dataset.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from calibrate.datasets.records import Record, printable
from calibrate.errors import DatasetBroken


def json_lines(path: Path, raw: bytes) -> Iterator[Record]:
    """The objects of a JSON-lines file, blank lines left out; line 1 is the first.

    Raises
    ------
    DatasetBroken
    """
    for number, line in enumerate(raw.splitlines(), 1):
        where = Record(str(path), f"line {number}", number, {})
        try:
            # Files with a byte order mark, joined end to end, have one in the middle.
            text = line.decode("utf-8").removeprefix("\ufeff")
            if text.strip():
                yield _object(where, json.loads(text, object_pairs_hook=_noticing))
        except (ValueError, RecursionError) as error:
            raise where.broken(f"is not JSON ({_why(error)})", "one JSON object in UTF-8 per line") from None


def json_document(path: Path, raw: bytes) -> Any:
    """What a JSON file holds.

    Raises
    ------
    DatasetBroken
    """
    try:
        document = json.loads(raw, object_pairs_hook=_noticing)
    except (ValueError, RecursionError) as error:
        raise DatasetBroken(
            f"{path}: is not JSON ({_why(error)})", expected="one JSON document in UTF-8", fix="fetch the file again"
        ) from None
    if (name := _twice(document)) is not None:
        raise DatasetBroken(
            f"{path}: field {name} stands twice", expected="each field once", fix="mend it, or fetch the file again"
        )
    return document


def json_records(path: Path, items: Any, place: str = "record") -> Iterator[Record]:
    """The objects of a JSON list; record 0 is the first.

    Raises
    ------
    DatasetBroken
    """
    if not isinstance(items, list):
        raise DatasetBroken(
            f"{path}: {place}s are a JSON {type(items).__name__}", expected="a list", fix="fetch the file again"
        )
    for number, data in enumerate(items):
        yield _object(Record(str(path), f"{place} {number}", number, {}), data)


class _Repeating(dict[str, Any]):
    """A JSON object in which the field `twice` stands more than once."""

    twice = ""


def _noticing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these fields, one that says so where a field stands twice: Python's reader keeps the last."""
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    names = [name for name, _ in pairs]
    repeating = _Repeating(fields)
    repeating.twice = next(name for name in names if names.count(name) > 1)
    return repeating


def _twice(value: Any) -> str | None:
    """The name of a field that stands twice in an object or in one of its fields."""
    inner = value.values() if isinstance(value, Mapping) else ()
    found = next((one.twice for one in (value, *inner) if isinstance(one, _Repeating)), None)
    return None if found is None else repr(printable(found))


def _object(where: Record, data: Any) -> Record:
    if not isinstance(data, dict):
        raise where.broken(f"is a JSON {type(data).__name__}", "an object")
    if (name := _twice(data)) is not None:
        raise where.broken(f"field {name} stands twice", "each field once")
    return Record(where.file, where.place, where.number, data)


def _why(error: Exception) -> str:
    """Why text is no JSON, in words that need no look at the reader."""
    if isinstance(error, json.JSONDecodeError):
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        return f"{error.msg} at {place}"
    if isinstance(error, UnicodeDecodeError):
        return f"its byte {error.start + 1} is not {error.encoding.upper()}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number in it is too long"
