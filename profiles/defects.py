"""Turns what pydantic found wrong with a document into one named error with file, field path and cure.

Does not read files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from profiles import errors
from profiles.errors import MissingField, NotFinite, UnknownField, UserError, WrongValue

REMAKE = "correct the file, or make it again"

# Pydantic's error types; those of `profiles.strict.defect` carry the name of their class.
_BY_TYPE: Mapping[str, type[UserError]] = {
    "extra_forbidden": UnknownField,
    "missing": MissingField,
    "finite_number": NotFinite,
}


def named_error(error: ValidationError, source: str) -> UserError:
    """The named error for the first defect in `error`.

    Parameters
    ----------
    error
        What `model_validate` raised.
    source
        File name, or another place the data came from, for the message.
    """
    first: Any = error.errors(include_url=False)[0]
    context: dict[str, Any] = first.get("ctx", {})
    path = field_path(first["loc"])
    if "fix" in context:  # from `profiles.strict.defect`
        kind = getattr(errors, first["type"])
        inner = context["path"]
        path += inner if not path or not inner or inner.startswith("[") else f".{inner}"
        return kind(f"{_place(source, path)} {context['found']}", expected=context["expected"], fix=context["fix"])
    kind = _BY_TYPE.get(first["type"], WrongValue)
    if kind is UnknownField:
        wrong, expected = f"{_place(source, path)} is not a field of version 1", "only the fields of FORMAT.md"
        return kind(wrong, expected=expected, fix="remove or rename it")
    if kind is MissingField:
        return missing(source, path)
    wrong = f"{_place(source, path)} is {_short(first['input'])}"
    return kind(wrong, expected=_expectation(first["msg"]), fix=REMAKE)


def missing(source: str, path: str) -> MissingField:
    """The error for a field that is not there."""
    return MissingField(f"{source}: {path} is missing", expected="every field of FORMAT.md", fix=REMAKE)


def first_unset(document: BaseModel) -> str | None:
    """Path of a field that took its Python default; files must spell out every field."""
    for name in type(document).model_fields:
        if name not in document.model_fields_set:
            return name
        value = getattr(document, name)
        members = [(name, value)]
        if isinstance(value, list):
            members = [(f"{name}[{index}]", member) for index, member in enumerate(value)]
        for path, member in members:
            inner = first_unset(member) if isinstance(member, BaseModel) else None
            if inner is not None:
                return f"{path}.{inner}"
    return None


def field_path(location: Sequence[int | str]) -> str:
    """Dotted path of a pydantic location.

    >>> field_path(("heads", "score", 3, 7))
    'heads.score[3][7]'
    """
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _place(source: str, path: str) -> str:
    return f"{source}: {path}" if path else f"{source}:"


def _expectation(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("a valid ")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
