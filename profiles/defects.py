"""Turns what pydantic found wrong with a document into one named error with file, field path and cure.

Does not read files.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from profiles import errors
from profiles.errors import MissingField, NotFinite, UnknownField, UserError, WrongValue

REMAKE = "correct the file, or make it again"

# Pydantic's error types; those of `profiles.strict.defect` carry the name of their class.
_BY_TYPE: Mapping[str, type[UserError]] = {
    "extra_forbidden": UnknownField,
    "finite_number": NotFinite,
}


def named_error(error: ValidationError, source: str, version: int = 1) -> UserError:
    """The named error for the first defect in `error`.

    Parameters
    ----------
    error
        What `model_validate` raised.
    source
        File name, or another place the data came from, for the message.
    version
        Of the document.
    """
    first: Any = error.errors(include_url=False)[0]
    context: dict[str, Any] = first.get("ctx", {})
    path = field_path(first["loc"])
    if "fix" in context:  # from `profiles.strict.defect`
        kind = getattr(errors, first["type"])
        inner = context["path"]
        path += inner if not path or not inner or inner.startswith("[") else f".{inner}"
        return kind(f"{_place(source, path)} {context['found']}", expected=context["expected"], fix=context["fix"])
    found = first["input"]
    kind = _BY_TYPE.get(first["type"], WrongValue)
    if kind is WrongValue and isinstance(found, float) and not math.isfinite(found):
        kind = NotFinite  # where an integer or text is expected, pydantic only says that
    if kind is UnknownField:
        wrong, expected = f"{_place(source, path)} is not a field of version {version}", "only the fields of FORMAT.md"
        return kind(wrong, expected=expected, fix="remove or rename it")
    wrong = f"{_place(source, path)} is {_short(found)}"
    return kind(wrong, expected=_expectation(first["msg"]), fix=REMAKE)


def missing(source: str, path: str) -> MissingField:
    """The error for a field that is not there."""
    return MissingField(f"{source}: {path} is missing", expected="every field of FORMAT.md", fix=REMAKE)


def field_path(location: Sequence[int | str]) -> str:
    """Dotted path of a pydantic location.

    >>> field_path(("heads", "score", 3, 7))
    'heads.score[3][7]'
    """
    path = ""
    for part in location:
        if isinstance(part, str) and part.isidentifier():
            path += f".{part}" if path else part
        else:  # indexes, and names from a file that could hold anything, control codes included
            path += f"[{part!a:.60}]"
    return path


def _place(source: str, path: str) -> str:
    return f"{source}: {path}" if path else f"{source}:"


def _expectation(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("a valid ")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
