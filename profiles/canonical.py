"""Canonical bytes of a document: same content, same bytes; and the digest over them.

Layout: UTF-8, keys sorted, two spaces of indent, a list of plain values on one line (so a row of heads is one line of
a diff), floats in their shortest form, one newline at the end. Does not know files.
"""

import hashlib
import json
from collections.abc import Set
from typing import Any

from profiles.strict import Strict


def to_bytes(document: Strict, *, without: Set[str] = frozenset()) -> bytes:
    """Canonical bytes of a document, optionally without some top-level fields."""
    return (_render(document.model_dump(mode="json", exclude=set(without)), "") + "\n").encode()


def digest(document: Strict, *, without: Set[str] = frozenset()) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of the canonical bytes."""
    return "sha256:" + hashlib.sha256(to_bytes(document, without=without)).hexdigest()


def _render(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{_plain(key)}: {_render(value[key], inner)}" for key in sorted(value)]
        return "{\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        rows = [_render(item, inner) for item in value]
        return "[\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}]"
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        value += 0.0  # -0.0 and 0.0 are equal, so they get the same bytes
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
