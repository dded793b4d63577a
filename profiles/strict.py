"""The base of every schema in this package, and the way a validator reports a defect with its place and cure.

Knows pydantic. Does not know files: `profiles.defects` turns what is raised here into named errors.
"""

import math
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from profiles.errors import MissingField, NotFinite, UserError, WrongValue

# Validation context for data from a file, which must spell out the fields that have a default in Python.
FROM_FILE = "file"


class Strict(BaseModel):
    """A frozen model without coercion, unknown fields or non-finite numbers.

    Two models are equal when they would be written as the same bytes; arrays would make pydantic's own comparison
    ambiguous.

    Attributes
    ----------
    OPTIONAL
        Fields that a file may leave out; None in Python, and left out when written, so that a document without them
        keeps the bytes that it had before they existed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, data: Any, info: ValidationInfo) -> Any:
        if info.context == FROM_FILE and isinstance(data, dict):
            for name in cls.model_fields:
                if name not in data and name not in cls.OPTIONAL:
                    raise defect(MissingField, name, "is missing", expected="every field of FORMAT.md")
                if name in cls.OPTIONAL and name in data and data[name] is None:
                    raise defect(WrongValue, name, "is null", expected="a value, or no such field")
        return data

    @model_serializer(mode="wrap")
    def _without_missing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if value is not None or name not in self.OPTIONAL}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Strict) or type(self) is not type(other):
            return NotImplemented
        return self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]  # lists and arrays inside; use `digest`


def defect(
    kind: type[UserError], path: str, found: str, *, expected: str, fix: str = "correct the file, or make it again"
) -> PydanticCustomError:
    """The error to raise inside a validator.

    Parameters
    ----------
    kind
        The named error it becomes when a file is loaded.
    path
        The field, relative to the model that is validated, such as ``score[3]``; may be empty.
    found, expected, fix
        What is there, what would be right, and what to do.
    """
    context = {"path": path, "found": found, "expected": expected, "fix": fix}
    return PydanticCustomError(kind.__name__, "{path}: {found}; expected {expected}; {fix}", context)


def _json_scalar(value: Any) -> Any:
    if value is not None and not isinstance(value, bool | int | float | str):
        raise defect(WrongValue, "", f"is {type(value).__name__}", expected="a string, number, boolean or null")
    if isinstance(value, float) and not math.isfinite(value):
        raise defect(NotFinite, "", f"is {value}", expected="a finite number")
    return value


# A plain validator, because the members of a union would turn up in the paths of error messages.
JsonScalar = Annotated[bool | int | float | str | None, PlainValidator(_json_scalar)]
