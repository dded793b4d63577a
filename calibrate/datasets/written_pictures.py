"""What a record of a user's own file says of its picture: a path, a data URI, base64, or an encoded file as bytes.

Owns telling these apart. How a picture is opened is in `pictures`.
"""

import re
from pathlib import Path
from typing import Any, Final

from calibrate.datasets.pictures import Base64Picture, BytesPicture, FilePicture, Picture
from calibrate.datasets.records import Record

EXPECTED: Final = "a path, a data URI in base64, or an encoded picture in base64"
_DATA_URI: Final = re.compile(r"data:[^,]*;\s*base64\s*,", re.IGNORECASE)
_URL: Final = re.compile(r"(data|https?|ftp|s3|gs):", re.IGNORECASE)
# PNG, JPEG, GIF, WebP, BMP and TIFF begin so in base64; a path that does is shorter, or has a dot.
_BASE64: Final = re.compile(r"(iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk|SUkqA|TU0AK)[^.]{60,}", re.DOTALL)


def picture_from_text(record: Record, name: str, folder: Path) -> Picture:
    """The picture that a text field says; `folder` is where paths begin.

    Raises
    ------
    DatasetBroken
        The field is no text, or an address: nothing is downloaded.
    """
    text = record.text(name)
    if (uri := _DATA_URI.match(text)) is not None:
        return Base64Picture("in its data URI", text[uri.end() :])
    if _BASE64.match(text):
        return Base64Picture("in base64", text)
    if _URL.match(text):
        raise record.unfit(name, EXPECTED)
    return FilePicture(text, (folder,))


def picture_from_cell(value: Any, folder: Path) -> Picture:
    """The picture of a cell of the library `datasets`: bytes, or `bytes` and, where those are empty, a `path`."""
    content = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) else None
    if content is None and path:
        return FilePicture(path, (folder,))
    return BytesPicture("in its cell", content or b"")
