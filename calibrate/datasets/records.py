"""Records of a dataset's files, as files hold them: a mapping of fields, and what to call it when it does not fit.

Owns the check of single fields; every error names file, record and field. Knows no file format and no dataset, so not
which fields there should be.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calibrate.datasets.sample import Box
from calibrate.errors import DatasetBroken
from profiles.errors import FileUnreadable

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")


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
        return self._encodable(name, value)

    def label(self, name: str) -> str:
        """A name or a number, as text without space around it."""
        if isinstance(value := self.get(name), int) and not isinstance(value, bool):
            return str(value)
        return self.text(name).strip()

    def one_of(self, name: str, allowed: tuple[str, ...], *, any_case: bool = False) -> str:
        """A label that is one of some, as it stands there."""
        value = self.label(name)
        found = [one for one in allowed if one == value or (any_case and one.casefold() == value.casefold())]
        if not found:
            raise self.unfit(name, f"one of {', '.join(allowed)}")
        return found[0]

    def integer(self, name: str) -> int:
        """A number without fraction; as text too."""
        if not _INTEGER.fullmatch(value := self.label(name)):
            raise self.unfit(name, "an integer")
        return int(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts that are not blank, as they stand."""
        value = self.get(name)
        if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
            raise self.unfit(name, "a list of texts")
        return tuple(self._encodable(name, one) for one in value)

    def box(self, name: str, value: Any, expected: str) -> Box:
        """`[x0, y0, x1, y1]`, found in the field `name`, with something between its corners."""
        corners = [finite(one) for one in value] if isinstance(value, list) else []
        x0, y0, x1, y1 = corners if len(corners) == 4 else [None] * 4
        if x0 is None or y0 is None or x1 is None or y1 is None or not (x0 < x1 and y0 < y1):
            raise self.unfit(name, expected)
        return x0, y0, x1, y1

    def filled(self, name: str) -> str | None:
        """A text or a whole number, as text, where there is one; `None` without a value: empty, null, NaN."""
        value = self.data.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, str) and not value.strip():
            return None
        return self.text(name) if isinstance(value, str) else self.label(name)

    def _encodable(self, name: str, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.broken(f"field {name!r} has half of a surrogate pair", "text that UTF-8 can hold") from None
        return text


def finite(value: Any) -> float | None:
    """A number as a float, `None` where it is none, or not finite; JSON has integers that no float can hold."""
    try:
        return float(value) if type(value) in (int, float) and math.isfinite(value) else None
    except OverflowError:
        return None


def shown(value: Any) -> str:
    """A value as JSON on one line, cut where it gets long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=lambda one: type(one).__name__)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} that is nested too deeply"
    return printable(text)


def printable(text: str, longest: int = 60) -> str:
    """Text without line ends and other control characters, which are escaped, and cut where it gets long."""
    if len(text) > longest:
        text = f"{text[: longest - 3]}..."
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


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
