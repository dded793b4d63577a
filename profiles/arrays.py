"""Float32 arrays inside the documents: numpy in Python, shape and base64 of little-endian values in JSON.

Does not know what an array means; the models that hold one check its shape against the geometry.
"""

import base64
import binascii
from math import prod
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import GetCoreSchemaHandler, NonNegativeInt
from pydantic_core import CoreSchema, core_schema

from profiles.errors import NotFinite, WrongShape, WrongValue
from profiles.strict import Strict, defect

LITTLE_ENDIAN = np.dtype("<f4")


class EncodedArray(Strict):
    """The JSON form: ``shape`` and the values in C order, little-endian float32, as standard base64."""

    shape: list[NonNegativeInt]
    base64: str


def encode(array: npt.NDArray[np.float32]) -> dict[str, Any]:
    """JSON form of an array of any shape."""
    raw = np.ascontiguousarray(array, dtype=LITTLE_ENDIAN).tobytes()
    return {"shape": list(array.shape), "base64": base64.b64encode(raw).decode("ascii")}


def decode(encoded: EncodedArray) -> npt.NDArray[np.float32]:
    """Array of a JSON form. Allocates what the text holds, never what `shape` claims.

    Raises
    ------
    WrongValue
        The text is not base64.
    WrongShape
        It holds more or fewer bytes than the shape has.
    """
    try:
        raw = base64.b64decode(encoded.base64, validate=True)
    except (binascii.Error, ValueError):
        raise defect(WrongValue, "base64", "is not base64", expected="standard base64 with padding") from None
    size = prod(encoded.shape) * LITTLE_ENDIAN.itemsize
    if len(raw) != size:
        found = f"holds {len(raw)} bytes for shape {encoded.shape}"
        raise defect(WrongShape, "base64", found, expected=f"{size} bytes (float32)")
    return np.frombuffer(raw, dtype=LITTLE_ENDIAN).reshape(encoded.shape).astype(np.float32)


def _finite(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = "".join(f"[{i}]" for i in bad[0])
        raise defect(NotFinite, place, f"is {array[tuple(bad[0])]}", expected="a finite number")
    array = np.ascontiguousarray(array + np.float32(0))  # -0.0 and 0.0 are equal, so they get the same bytes
    array.setflags(write=False)
    return array


class _Float32:
    """Makes pydantic accept a numpy array or its JSON form, and write the JSON form."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> npt.NDArray[np.float32]:
            if not isinstance(value, np.ndarray):
                return _finite(decode(inner(value)))
            if value.dtype.kind != "f":
                raise defect(WrongValue, "", f"is an array of {value.dtype}", expected="an array of floats")
            with np.errstate(over="ignore"):  # becomes infinite, which is refused
                return _finite(value.astype(np.float32))

        return core_schema.no_info_wrap_validator_function(
            validate,
            handler.generate_schema(EncodedArray),
            serialization=core_schema.plain_serializer_function_ser_schema(encode),
        )


Float32Array = Annotated[npt.NDArray[np.float32], _Float32()]
"""Finite, read-only float32 values; NaN and infinity are refused."""
