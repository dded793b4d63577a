"""The header of a safetensors file: names, types and shapes of its tensors, compared with the size of the file.

Reads no tensor. Does not know what a model should have.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Final

from profiles.errors import ModelBroken

MOST_BYTES: Final = 100_000_000
"""Longest header that the format allows."""

_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor's `dtype`, as the format names it (`BF16`), and shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, by name.

    Raises
    ------
    ModelBroken
        The file is missing or unreadable, its header is damaged, or the file is shorter or longer than the header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MOST_BYTES, size - 8):
                raise _damaged(path, f"its header is damaged, or it is cut off ({size} bytes)")
            header = json.loads(file.read(length))
    except OSError as error:
        raise _damaged(path, str(error.strerror or error)) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is damaged") from error
    try:
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted(_span(entry) for entry in entries.values())
        tensors = {name: Tensor(entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "its header is damaged") from error
    if any(one[1] != other[0] for one, other in pairwise([(0, 0), *spans])):
        raise _damaged(path, "its header is damaged: tensors overlap or leave gaps")
    whole = 8 + length + (spans[-1][1] if spans else 0)
    if size != whole:
        what = "is cut off" if size < whole else "is too long"
        raise _damaged(path, f"{what}: {size} bytes of {whole}")
    return tensors


def _span(entry: Any) -> tuple[int, int]:
    """First and last byte of a tensor's data, checked against its type and shape."""
    first, last = entry["data_offsets"]
    shape = entry["shape"]
    if not all(type(value) is int and value >= 0 for value in (first, last, *shape)):
        raise ValueError(entry)
    bits = _BITS.get(entry["dtype"])  # a type that is not known here may have any size
    if bits is not None and (last - first) * 8 != prod(shape) * bits:
        raise ValueError(entry)
    return first, last


def _damaged(path: Path, what: str) -> ModelBroken:
    return ModelBroken(f"{path}: {what}", expected="a whole safetensors file", fix="fetch or save the model again")
