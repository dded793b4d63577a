"""Picture files drawn at random, as hypothesis strategies: formats, modes, orientations, animations, damage.

Owns how such a file is written; judges nothing.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from PIL import Image

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"),
    "BMP": ("1", "L", "P", "RGB"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "I;16"),
    "ICO": ("RGBA",),
}
ANIMATED = ("GIF", "PNG", "WEBP")
ORIENTED = ("PNG", "JPEG", "WEBP", "TIFF")
SIZES = st.one_of(st.integers(1, 4), st.integers(5, 90), st.sampled_from([71, 72, 73, 144, 300]))


@st.composite
def picture_files(draw: st.DrawFn) -> bytes:
    """Content of a file, perhaps cut, or with some of its bytes changed."""
    form = draw(st.sampled_from(sorted(MODES)))
    mode = draw(st.sampled_from(MODES[form]))
    size, seed = (draw(SIZES), draw(SIZES)), draw(st.integers(0, 2**32 - 1))
    options: dict[str, Any] = {}
    if form in ORIENTED and (way := draw(st.integers(0, 9))):
        options["exif"] = orientation(way)
    if form in ANIMATED and mode != "I;16" and draw(st.booleans()):
        options |= {"save_all": True, "append_images": [noise(mode, size, seed + 1)]}
    if form == "PNG" and mode in ("L", "P", "RGB", "I;16") and draw(st.booleans()):
        level = draw(st.integers(0, 255))
        whole = {"L": level, "RGB": (level, level, level), "I;16": level * 257}
        options["transparency"] = bytes(range(256)) if mode == "P" else whole[mode]
    try:
        content = encoded(noise(mode, size, seed), form, **options)
    except (OSError, ValueError):  # Pillow writes no such file: an animation with this transparency, an icon so narrow
        reject()
    match draw(st.sampled_from(["whole", "whole", "cut", "changed"])):
        case "cut":
            content = content[: draw(st.integers(0, len(content)))]
        case "changed":
            changes = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=3)
            content = changed(content, draw(changes))
    return content


def orientation(way: int) -> Image.Exif:
    """An EXIF block with nothing but an orientation."""
    exif = Image.Exif()
    exif[0x0112] = way
    return exif


def changed(content: bytes, changes: Sequence[tuple[int, int]]) -> bytes:
    """Content with other bytes at some places."""
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place] = value
    return bytes(damaged)


def noise(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    """A picture of a mode, in large and small patches of noise."""
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0])
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(rng.integers(0, 65536, shape).astype(kind))
    return Image.fromarray(rng.integers(0, 256, (*shape, 4), dtype=np.uint8)).convert(mode)


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """Content of a file with a picture."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()
