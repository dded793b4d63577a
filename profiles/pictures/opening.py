"""From a picture's file to the pixels that a model is shown, the same for calibration and for the server.

Owns formats, orientation, transparency and 16-bit samples. Pixels are those of vLLM 0.32 (vllm/multimodal/image.py and
media/image.py: EXIF orientation applied, transparency on white), to the last value, with two differences: vLLM turns
16-bit grey white, and shows pictures with broken data as far as they go. Does not know where files come from, nor what
a processor makes of the pixels.
"""

import io
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from profiles.error_text import one_line
from profiles.pictures.limits import MAX_PIXELS, excess

FORMATS: Final = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened: of those that vLLM opens, the ones in use whose header says how large
the decoded picture is. Icons (ICO, ICNS) hold files of their own, of any size.
"""

WHITE: Final = (255, 255, 255)
"""What is seen through transparent pixels."""


class UnreadablePicture(ValueError):
    """A picture that cannot be shown; says why, in one line without an end."""


def open_picture(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an encoded picture: upright, RGB, transparency on white; of an animation the first frame.

    Parameters
    ----------
    encoded
        Content of the file.
    max_pixels
        Larger pictures (width times height) are refused before they are decoded.

    Raises
    ------
    UnreadablePicture
    """
    picture = read_header(encoded)
    if (wrong := excess(picture.size, picture.size, max_pixels)) is not None:
        raise UnreadablePicture(wrong)
    return to_rgb(decode(picture))


def read_header(encoded: bytes) -> Image.Image:
    """Open an encoded picture without decoding it: format, size (before it is turned) and mode.

    Raises
    ------
    UnreadablePicture
    """
    try:
        picture = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise UnreadablePicture(f"it is in none of the formats {known}, or its beginning is damaged") from None
    except Exception as error:  # whatever a damaged file makes Pillow's readers stumble over
        raise _unreadable(error) from error
    if 0 in picture.size:
        raise UnreadablePicture("it has no pixels")
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PPM"):
        kind = "floating-point" if picture.mode == "F" else "32-bit"
        raise UnreadablePicture(f"its pixels are {kind} numbers, which have no white (Pillow's mode {picture.mode})")
    return picture


def decode(picture: Image.Image) -> Image.Image:
    """Decode what `read_header` opened, turn it upright, and keep 8 bits of each sample; the mode is the file's own.

    Of 16-bit grey the high byte is kept, as Pillow does itself with 16-bit colour. Of what the file says beside its
    pixels, the transparent colour alone is kept: a processor that found an orientation would turn the picture again.

    Raises
    ------
    UnreadablePicture
    """
    try:
        # First: of broken data Pillow keeps what it has, and says nothing when it is asked a second time.
        picture.load()
        upright = _upright(picture)
        upright.info = {name: said for name, said in upright.info.items() if name == "transparency"}
        return _high_bytes(upright) if upright.mode.startswith("I") else upright
    except Exception as error:
        raise _unreadable(error) from error


def to_rgb(picture: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Turn a decoded picture of any mode into RGB, transparent pixels on a background.

    Raises
    ------
    UnreadablePicture
        Pillow cannot turn its mode into RGB.
    """
    if picture.mode == "RGB":
        return picture
    try:
        if picture.mode not in ("RGBA", "LA", "PA") and "transparency" not in picture.info:
            return picture.convert("RGB")
        layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        shown = Image.new("RGB", layer.size, background)
        shown.paste(layer, mask=layer.split()[3])
    except Exception as error:
        raise _unreadable(error) from error
    return shown


def media_type(encoded: bytes) -> str:
    """MIME type of an encoded picture, such as `image/jpeg`.

    Raises
    ------
    UnreadablePicture
    """
    kind = str(read_header(encoded).format)
    return Image.MIME["JPEG" if kind == "MPO" else kind]  # MPO: a camera's JPEG with further pictures behind it


def _upright(picture: Image.Image) -> Image.Image:
    """A copy, turned as its EXIF block says; as vLLM does, one with a damaged block is left as it lies."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture.copy()


def _high_bytes(picture: Image.Image) -> Image.Image:
    samples: Any = np.asarray(picture)
    grey = Image.fromarray((samples >> 8).astype(np.uint8))
    if isinstance(transparent := picture.info.get("transparency"), int):
        opaque = Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, opaque))
    return grey


def _unreadable(error: Exception) -> UnreadablePicture:
    return UnreadablePicture(one_line(str(error), 200) or type(error).__name__)
