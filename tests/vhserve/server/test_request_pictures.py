"""The pixels of a request's pictures: each and together, as sent and as a processor resizes them."""

import pytest

from profiles.pictures.opening import UnreadablePicture
from profiles.pictures.resizing import ResizeRule
from vhserve.server.request_pictures import PixelLimits, RequestPictures

CLIP = ResizeRule(336)


class Processor:
    """Of transformers, as far as its size rule goes."""

    do_resize = True

    def __init__(self, **size: int) -> None:
        self.size = size


def test_the_shortest_edge_decides_and_the_other_has_no_bound() -> None:
    assert ResizeRule.of(Processor(shortest_edge=336)) == CLIP
    assert CLIP.resized((1, 5000)) == (336, 1_680_000)
    assert CLIP.resized((5000, 1)) == (1_680_000, 336)
    assert CLIP.resized((672, 1008)) == (336, 504)


@pytest.mark.parametrize("size", [{"height": 336, "width": 336}, {"shortest_edge": 336, "longest_edge": 500}, {}])
def test_other_rules_are_bounded_by_themselves(size: dict[str, int]) -> None:
    assert ResizeRule.of(Processor(**size)).resized((1, 5000)) == (1, 5000)
    assert ResizeRule.of(None) == ResizeRule()


def test_a_thin_picture_is_refused_by_what_it_becomes() -> None:
    pictures = RequestPictures(PixelLimits(), CLIP)
    with pytest.raises(UnreadablePicture, match=r"336 x 1680000, 564480000 in all.*50000000 \(--max-image-pixels\)"):
        pictures.admit((1, 5000))
    pictures.admit((1, 400))


def test_frames_are_pictures_by_a_rule_of_their_own() -> None:
    pictures = RequestPictures(PixelLimits(image=30_000, request=100_000), CLIP, ResizeRule(100))
    assert [pictures.next_number(what) for what in ("video", "image", "video", "image")] == [1, 1, 2, 2]
    pictures.admit_frames((50, 100), 2)  # resized to 100 by 200
    with pytest.raises(UnreadablePicture, match=r"makes 100 x 400, 40000 in all, .*30000 \(--max-image-pixels\)"):
        pictures.admit_frames((50, 200))
    with pytest.raises(UnreadablePicture, match=r"with 7 frames of 100 x 100 .* 110000 pixels.*100000 \(--max-request"):
        pictures.admit_frames((100, 100), 7)
    with pytest.raises(UnreadablePicture, match=r"--max-image-pixels"):
        pictures.admit((1, 1))  # 336 by 336, by the pictures' rule


def test_many_small_pictures_are_too_many_together() -> None:
    pictures = RequestPictures(PixelLimits(request=336 * 336 * 3), CLIP)
    for number in range(1, 4):
        assert pictures.next_number() == number
        pictures.admit((1, 1))
    with pytest.raises(UnreadablePicture, match=r"451584 pixels.*338688 \(--max-request-pixels\)"):
        pictures.admit((1, 1))
