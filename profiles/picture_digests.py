"""Which pictures a dataset's samples show, as a set of digests in one text, so that an overlap of two can be found.

Knows no picture and no file.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Final

LENGTH: Final = 6
"""Bytes kept of a SHA-256: two sets of 10,000 pictures have one in common by chance once in three million times."""


def packed(digests: Iterable[bytes]) -> str:
    """Base64 of the first `LENGTH` bytes of each digest, sorted, each once."""
    return base64.b64encode(b"".join(sorted({digest[:LENGTH] for digest in digests}))).decode("ascii")


def unpacked(text: str) -> frozenset[bytes]:
    """The digests in a text.

    Raises
    ------
    ValueError
        It is not what `packed` makes.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    found = [raw[start : start + LENGTH] for start in range(0, len(raw), LENGTH)]
    if len(raw) % LENGTH or found != sorted(set(found)):
        raise ValueError(f"not sorted parts of {LENGTH} bytes")
    return frozenset(found)
