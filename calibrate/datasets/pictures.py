"""Where a question's picture comes from: a file in one of some folders, a text in base64; and a box drawn on it.

Owns getting at the file, when its pixels are wanted; how it is decoded is in `profiles.pictures`. Knows no question;
what a failure means is up to who asked.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from PIL import Image, ImageDraw

from profiles.pictures.opening import open_picture

RED: Final = (255, 0, 0, 128)
_SIDE: Final = 336  # of the pictures that LLaVA-1.5's vision tower sees; what line widths are measured by


@dataclass(frozen=True)
class LoadedPicture:
    """A picture's pixels and its file.

    Attributes
    ----------
    image
        As the server shows it: RGB, upright, transparency on white.
    file
        Content of the file that it was decoded from; `None` where it was drawn on, or made here.
    """

    image: Image.Image
    file: bytes | None


class Picture(Protocol):
    """A picture that can be loaded; `name` says in errors which."""

    @property
    def name(self) -> str: ...

    def load(self) -> LoadedPicture:
        """Decode the picture.

        Raises
        ------
        FileNotFoundError
            There is none.
        ValueError, OSError
            It cannot be read or decoded.
        """
        ...

    def digest(self) -> bytes:
        """SHA-256 of the encoded file, 32 bytes.

        Raises
        ------
        Exception
            It cannot be read.
        """
        ...


def load_picture(file: bytes | Path) -> LoadedPicture:
    """Decode a file, or the content of one.

    Raises
    ------
    OSError
        The file cannot be read; `FileNotFoundError` where there is none.
    UnreadablePicture
        A `ValueError`: it cannot be decoded, or is too large.
    """
    content = file if isinstance(file, bytes) else file.read_bytes()
    return LoadedPicture(open_picture(content), content)


@dataclass(frozen=True)
class FilePicture:
    """A file, in the first of the folders that has it."""

    name: str
    folders: tuple[Path, ...]

    def load(self) -> LoadedPicture:
        return load_picture(self._path())

    def digest(self) -> bytes:
        with self._path().open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def _path(self) -> Path:
        path = next((path for folder in self.folders if (path := folder / self.name).is_file()), None)
        if path is None:
            raise FileNotFoundError(self.name)
        return path


@dataclass(frozen=True)
class Base64Picture:
    """An encoded file as base64 text; empty where there is none."""

    name: str
    text: str

    def load(self) -> LoadedPicture:
        return load_picture(self.content())

    def digest(self) -> bytes:
        return hashlib.sha256(self.content()).digest()

    def content(self) -> bytes:
        """The encoded file."""
        if not self.text:
            raise FileNotFoundError(self.name)
        return base64.b64decode("".join(self.text.split()), validate=True)  # often broken into lines


@dataclass(frozen=True)
class BytesPicture:
    """The content of an encoded file; empty where there is none."""

    name: str
    raw: bytes

    def load(self) -> LoadedPicture:
        if not self.raw:
            raise FileNotFoundError(self.name)
        return load_picture(self.raw)

    def digest(self) -> bytes:
        return hashlib.sha256(self.raw).digest()


@dataclass(frozen=True)
class MarkedPicture:
    """Another picture with a red rectangle around a box.

    As ViP-LLaVA draws it for PointQA: half transparent, 3 pixels wide where the longer side has 336 (`image_blending`,
    style `constant`, in llava/visual_prompt_generator.py; `--alpha 128` in scripts/eval/pointQA.sh).
    """

    picture: Picture
    box: tuple[float, float, float, float]

    @property
    def name(self) -> str:
        return self.picture.name

    def digest(self) -> bytes:
        return self.picture.digest()

    def load(self) -> LoadedPicture:
        picture = self.picture.load().image.convert("RGBA")
        layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
        width = max(int(3 * max(picture.size) / _SIDE), 1)
        ImageDraw.Draw(layer).rectangle(self.box, outline=RED, width=width)
        return LoadedPicture(Image.alpha_composite(picture, layer).convert("RGB"), None)
