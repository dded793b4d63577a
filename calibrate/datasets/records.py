"""Records of a dataset's files, as files hold them: a mapping of fields, and what to call it when it does not fit.

Owns reading JSON, JSON lines and TSV, and the check of single fields; every error names file, record and field. Knows
no dataset, so not which fields there should be.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.datasets.sample import Box
from calibrate.errors import DatasetBroken
from profiles.errors import FileUnreadable


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes
    ----------
    file, place
        Where it stands, in words: path (or Hub id), and such as `line 3`.
    number
        Its number in the file.
    data
        Its fields.
    """

    file: str
    place: str
    number: int
    data: Mapping[str, Any]

    def broken(self, wrong: str, expected: str) -> DatasetBroken:
        """The error of a record that does not fit, to be raised."""
        return DatasetBroken(f"{self.file}: {self.place}: {wrong}", expected=expected, fix="mend it, or take it out")

    def unfit(self, name: str, expected: str) -> DatasetBroken:
        """The error of a field that does not fit, to be raised."""
        return self.broken(f"field {name!r} is {shown(self.data[name])}", expected)

    def get(self, name: str) -> Any:
        """A field that must be there, whatever it holds."""
        if name not in self.data:
            raise self.broken(f"field {name!r} is missing", "that field")
        return self.data[name]

    def text(self, name: str) -> str:
        """A text that is not blank, as it stands."""
        value = self.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.unfit(name, "a text that is not empty")
        return value

    def label(self, name: str) -> str:
        """A name or a number, as text without space around it."""
        if isinstance(value := self.get(name), int) and not isinstance(value, bool):
            return str(value)
        return self.text(name).strip()

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        """A label that is one of some."""
        if (value := self.label(name)) not in allowed:
            raise self.unfit(name, f"one of {', '.join(allowed)}")
        return value

    def integer(self, name: str) -> int:
        """A number without fraction; as text too."""
        try:
            return int(self.label(name))
        except ValueError:
            raise self.unfit(name, "an integer") from None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, without space around them."""
        value = self.get(name)
        if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
            raise self.unfit(name, "a list of texts")
        return tuple(one.strip() for one in value)

    def box(self, name: str, value: Any, expected: str) -> Box:
        """`[x0, y0, x1, y1]`, found in the field `name`, with something between its corners."""
        numbers = isinstance(value, list) and len(value) == 4 and all(type(one) in (int, float) for one in value)
        if not numbers or not all(map(math.isfinite, value)) or not (value[0] < value[2] and value[1] < value[3]):
            raise self.unfit(name, expected)
        return float(value[0]), float(value[1]), float(value[2]), float(value[3])

    def filled(self, name: str) -> str | None:
        """A text where there is one; `None` for what tables write into empty cells: nothing, NaN, `nan`, `none`."""
        value = self.data.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        text = str(value).strip()
        return None if text.casefold() in ("", "nan", "none") else text


def shown(value: Any) -> str:
    """A value as JSON, cut where it gets long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises
    ------
    FileUnreadable
    """
    try:
        return path.read_bytes()
    except OSError as error:
        expected = f"a readable {path.suffix or 'file'}{' file' if path.suffix else ''}"
        raise FileUnreadable(f"{path}: {error.strerror or error}", expected=expected, fix="check the path") from error


def json_lines(path: Path, raw: bytes) -> Iterator[Record]:
    """The objects of a JSON-lines file, blank lines left out; line 1 is the first.

    Raises
    ------
    DatasetBroken
    """
    for number, text in enumerate(raw.splitlines(), 1):
        if text.strip():
            where = Record(str(path), f"line {number}", number, {})
            try:
                data = json.loads(text)
            except (ValueError, RecursionError):
                raise where.broken("is not JSON", "one JSON object in UTF-8 per line") from None
            yield _object(where, data)


def json_document(path: Path, raw: bytes) -> Any:
    """What a JSON file holds.

    Raises
    ------
    DatasetBroken
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        why = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise DatasetBroken(
            f"{path}: is not JSON{why}", expected="one JSON document in UTF-8", fix="fetch the file again"
        ) from None


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


def _object(where: Record, data: Any) -> Record:
    if not isinstance(data, dict):
        raise where.broken(f"is a JSON {type(data).__name__}", "an object")
    return Record(where.file, where.place, where.number, data)


def tab_separated(path: Path, raw: bytes) -> Iterator[Record]:
    """The rows of a tab-separated file with a header, quoted as by Excel and pandas; row 1 is the first below it.

    Raises
    ------
    DatasetBroken
    """
    limit = csv.field_size_limit(sys.maxsize)  # a cell may hold a picture
    try:
        table = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), delimiter="\t")
        header, *rows = [row for row in table if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetBroken(
            f"{path}: is no table ({error})", expected="tab-separated columns in UTF-8", fix="fetch the file again"
        ) from None
    finally:
        csv.field_size_limit(limit)
    for number, row in enumerate(rows, 1):
        record = Record(str(path), f"row {number}", number, dict(zip(header, row, strict=False)))
        if len(row) != len(header):
            raise record.broken(f"has {len(row)} cells", f"{len(header)}, as in the header")
        yield record
