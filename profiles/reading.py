"""Parses the text of a profile or plan: JSON without its loopholes, and of the format and version that we read.

Python's parser takes duplicate fields, NaN and Infinity; this one names them. Does not know files or schemas.
"""

import codecs
import json
from collections.abc import Sequence
from typing import Any

from profiles.defects import REMAKE, field_path, missing
from profiles.errors import DuplicateField, FileTruncated, NotJson, UserError, WrongValue, WrongVersion


def parse(raw: bytes, source: str) -> dict[str, Any]:
    """The JSON object in `raw`. NaN and infinities stay in it, for the schema to name with their path.

    Raises
    ------
    FileTruncated, NotJson, DuplicateField, WrongValue
    """
    if raw.startswith(codecs.BOM_UTF8):
        wrong = f"{source}: begins with a byte order mark"
        raise NotJson(wrong, expected="JSON in UTF-8 without one", fix="save it without")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end == len(raw) and "unexpected end" in error.reason:
            raise _truncated(source, len(raw)) from None
        raise NotJson(f"{source}: byte {error.start} is not UTF-8", expected="JSON in UTF-8", fix=REMAKE) from None
    try:
        data = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, source))
    except json.JSONDecodeError as error:
        if _ends_early(text):
            raise _truncated(source, len(raw)) from None
        wrong = f"{source}: line {error.lineno} column {error.colno} is not JSON ({error.msg})"
        raise NotJson(wrong, expected="one JSON object", fix=REMAKE) from None
    except RecursionError:
        raise NotJson(f"{source}: is nested too deeply", expected="a profile or plan", fix=REMAKE) from None
    except ValueError:  # an integer of thousands of digits
        raise WrongValue(f"{source}: has a number too long to read", expected="a number", fix=REMAKE) from None
    if not isinstance(data, dict):
        raise WrongValue(f"{source}: is a JSON {type(data).__name__}", expected="a JSON object", fix=REMAKE)
    if "\\ud" in text.lower():
        _refuse_surrogates(data, (), source)
    return data


def check_version(data: dict[str, Any], expected: str, source: str, versions: Sequence[int] = (1,)) -> int:
    """The document's version, one of `versions`; another format or version is refused before its fields are looked at.

    Raises
    ------
    MissingField, WrongVersion
    """
    for field in ("format", "version"):
        if field not in data:
            raise missing(source, field)
    if data["format"] != expected:
        fix = f"give a file whose format is {expected}"
        raise WrongVersion(f"{source}: format is {data['format']!r:.60}", expected=repr(expected), fix=fix)
    if type(data["version"]) is not int or data["version"] not in versions:
        fix = "use the vhserve release that wrote it, or make it again"
        raise WrongVersion(
            f"{source}: version is {data['version']!r:.60}", expected=" or ".join(map(str, versions)), fix=fix
        )
    return int(data["version"])


def _unique(pairs: list[tuple[str, Any]], source: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            wrong = f"{source}: {name!r:.60} stands twice in one object"
            raise DuplicateField(wrong, expected="each field once", fix=REMAKE)
        fields[name] = value
    return fields


def _refuse_surrogates(value: Any, place: tuple[str | int, ...], source: str) -> None:
    """Refuse text that UTF-8 cannot hold, which JSON can escape."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            wrong = f"{source}: {field_path(place)} has half of a surrogate pair"
            raise WrongValue(wrong, expected="text that UTF-8 can hold", fix=REMAKE) from None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _refuse_surrogates(key, (*place, key), source)
        _refuse_surrogates(item, (*place, key), source)


def _truncated(source: str, size: int) -> UserError:
    wrong = f"{source}: ends after {size} bytes in the middle of its JSON"
    return FileTruncated(wrong, expected="a complete file", fix="copy or make it again")


def _ends_early(text: str) -> bool:
    """True when the text stops inside a string, array or object, or before its first value."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
    return quoted or depth > 0 or not text.strip()
