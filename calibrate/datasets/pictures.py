"""Where a question's picture comes from: a file in one of some folders, a text in base64; and a box drawn on it.

Owns getting at the pixels, when they are wanted. Knows no question; what a failure means is up to who asked.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from PIL import Image, ImageDraw

RED: Final = (255, 0, 0, 128)
_SIDE: Final = 336  # of the pictures that LLaVA-1.5's vision tower sees; what line widths are measured by


class Picture(Protocol):
    """A picture that can be loaded; `name` says in errors which."""

    @property
    def name(self) -> str: ...

    def load(self) -> Image.Image:
        """Decode the picture, RGB.

        Raises
        ------
        FileNotFoundError
            There is none.
        Exception
            Whatever its decoder raises.
        """
        ...


@dataclass(frozen=True)
class FilePicture:
    """A file, in the first of the folders that has it."""

    name: str
    folders: tuple[Path, ...]

    def load(self) -> Image.Image:
        path = next((path for folder in self.folders if (path := folder / self.name).is_file()), None)
        if path is None:
            raise FileNotFoundError(self.name)
        with Image.open(path) as file:
            return file.convert("RGB")


@dataclass(frozen=True)
class Base64Picture:
    """An encoded file as base64 text; empty where there is none."""

    name: str
    text: str

    def load(self) -> Image.Image:
        if not self.text:
            raise FileNotFoundError(self.name)
        with Image.open(io.BytesIO(base64.b64decode(self.text, validate=True))) as file:
            return file.convert("RGB")


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

    def load(self) -> Image.Image:
        picture = self.picture.load().convert("RGBA")
        layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
        width = max(int(3 * max(picture.size) / _SIDE), 1)
        ImageDraw.Draw(layer).rectangle(self.box, outline=RED, width=width)
        return Image.alpha_composite(picture, layer).convert("RGB")
