"""Opening a picture: orientation, transparency, 16-bit grey, and one line for whatever cannot be shown."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from profiles.pictures.opening import UnreadablePicture, media_type, open_picture

RAMP = np.arange(240, dtype=np.uint16).reshape(12, 20)


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_the_same_grey_in_8_bits(form: str) -> None:
    shown = np.asarray(open_picture(encoded(Image.fromarray(RAMP * 257), form)))
    assert (shown == RAMP[..., None]).all()


def test_16_bit_grey_with_a_transparent_value_is_white_there_and_nowhere_else() -> None:
    picture = Image.fromarray(RAMP * 257)
    shown = np.asarray(open_picture(encoded(picture, transparency=7 * 257)))[..., 0]
    assert (shown == np.where(RAMP == 7, 255, RAMP)).all()
    assert (np.asarray(open_picture(encoded(picture, transparency=7 * 257 + 1)))[..., 0] == RAMP).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(orientation: int) -> None:
    picture, exif = Image.new("RGB", (6, 4)), Image.Exif()
    picture.putpixel((0, 0), (255, 0, 0))  # where the file begins, by the EXIF standard's table
    right, low = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    exif[0x0112] = orientation
    shown = open_picture(encoded(picture, exif=exif))
    assert shown.size == ((6, 4) if orientation < 5 else (4, 6))
    assert shown.getpixel((right * (shown.width - 1), low * (shown.height - 1))) == (255, 0, 0)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_nothing_is_left_that_would_turn_it_again(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = open_picture(encoded(Image.new("RGB", (6, 4)), form, exif=exif))
    assert ImageOps.exif_transpose(shown).size == shown.size == (4, 6)
    assert not shown.info


def with_changed_byte(form: str, orientation: int) -> bytes:
    """A picture whose data, not its beginning, are changed so that no decoder can follow them to the end."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    content = bytearray(encoded(Image.fromarray(noise), form, exif=exif))
    half = len(content) // 2
    content[half : half + 40] = b"\xff\xd8" * 20 if form == "JPEG" else bytes(40)
    return bytes(content)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", [1, 2, 6])
def test_broken_data_are_refused_whichever_way_the_picture_lies(form: str, orientation: int) -> None:
    with pytest.raises(UnreadablePicture):
        open_picture(with_changed_byte(form, orientation))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (10, 10, 10, 255))
    shown = open_picture(encoded(picture.convert(mode)))
    assert (shown.getpixel((0, 0)), shown.getpixel((1, 0))) == ((255, 255, 255), (10, 10, 10))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "none of the formats AVIF"),
        (b"hello world, not an image", "none of the formats AVIF"),
        (encoded(Image.new("RGB", (16, 16)), "ICO"), "none of the formats AVIF"),
        (encoded(Image.new("RGB", (40, 40), "red"))[:-30], "truncated|broken"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating-point"),
        (encoded(Image.new("I", (4, 4)), "TIFF"), "32-bit"),
    ],
    ids=["empty", "text", "icon", "truncated", "floats", "32 bits"],
)
def test_what_cannot_be_shown_says_why_in_one_line(content: bytes, why: str) -> None:
    with pytest.raises(UnreadablePicture, match=why) as caught:
        open_picture(content)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_a_large_picture_is_refused_by_its_header() -> None:
    declared = encoded(Image.new("1", (8_000, 8_000)))[:60]  # no more than the header
    with pytest.raises(UnreadablePicture, match="8000 x 8000 pixels, 64000000 in all, which are more than 50000000"):
        open_picture(declared)


@pytest.mark.parametrize(("form", "kind"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("GIF", "gif")])
def test_the_media_type_of_a_file_is_read_off_it(form: str, kind: str) -> None:
    assert media_type(encoded(Image.new("RGB", (4, 4)), form)) == f"image/{kind}"


def test_a_camera_s_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    two = encoded(Image.new("RGB", (8, 8)), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert media_type(two) == "image/jpeg"
    assert open_picture(two).size == (8, 8)
