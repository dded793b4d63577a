"""Boxes against the processor itself: a white stripe is drawn, and the tokens that come out white must be the ones."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from calibrate.models.boxes import box_tokens

SEED = 20261


def whiteness(model, size, box):
    """Share of white of each image token, in the order of the tokens; -1 for those that show no pixel."""
    picture = Image.new("RGB", size)
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=(255, 255, 255))
    images, config = model.processor.image_processor, model.model.config
    made = images(picture, return_tensors="pt", do_normalize=False)
    pixels = made["pixel_values"][0]
    tiles = pixels if pixels.ndim == 4 else pixels[None]
    patch = config.vision_config.patch_size
    shares = torch.nn.functional.avg_pool2d(tiles.mean(1, keepdim=True), patch).flatten(1)
    if config.model_type != "llava_next":
        return shares[0].numpy()
    packed, _ = model.model.model.pack_image_features(
        [shares[:, :, None]], made["image_sizes"], "default", image_newline=torch.tensor([-1.0])
    )
    return packed[0][:, 0].numpy()


def sizes(seed):
    rng = np.random.default_rng(seed)
    return [(96, 96), (72, 72), *(tuple(int(x) for x in rng.integers(30, 260, 2)) for _ in range(12))]


def test_stripes_and_their_crossings(model):
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    checked = 0
    for width, height in sizes(SEED):
        x0, y0 = (int(rng.integers(0, side * 2 // 3)) for side in (width, height))
        x1, y1 = (int(rng.integers(start + side // 5, side)) for start, side in ((x0, width), (y0, height)))
        stripes = (x0, 0, x1, height), (0, y0, width, y1)
        found = []
        for box in stripes:
            white = whiteness(model, (width, height), box)
            inside = box_tokens(box, (width, height), model.processor, model.model.config, len(white))
            inside = np.zeros(len(white), bool) if inside is None else inside
            clear = np.abs(white - 0.5) > 0.15  # resizing blurs edges
            assert np.array_equal(inside[clear], (white > 0.5)[clear]), (width, height, box)
            checked += int(inside.sum())
            found.append(inside)
        crossing = box_tokens((x0, y0, x1, y1), (width, height), model.processor, model.model.config, len(white))
        if (found[0] & found[1]).any():
            assert np.array_equal(crossing, found[0] & found[1])
    assert checked > 300


def test_cells_of_the_size_of_a_patch_are_one_token(llava):
    # 72 pixels, patches of 8: nothing is resized, so cell and patch coincide.
    for column, row in ((0, 0), (3, 5), (8, 8)):
        box = (8 * column, 8 * row, 8 * column + 8, 8 * row + 8)
        inside = box_tokens(box, (72, 72), llava.processor, llava.model.config, 81)
        assert inside.nonzero()[0].tolist() == [9 * row + column]


def test_a_box_too_small_for_any_centre_marks_what_it_touches(llava):
    inside = box_tokens((7, 1, 9, 2), (72, 72), llava.processor, llava.model.config, 81)
    assert inside.nonzero()[0].tolist() == [0, 1]


def test_a_box_that_is_cropped_away_has_no_tokens(llava):
    # 144 x 72 loses 36 pixels on the left and on the right.
    assert box_tokens((0, 0, 30, 72), (144, 72), llava.processor, llava.model.config, 81) is None
    assert box_tokens((0, 0, 60, 72), (144, 72), llava.processor, llava.model.config, 81) is not None


def test_a_count_that_does_not_fit_has_no_answer(model):
    count = model.geometry.image_tokens
    assert box_tokens((0, 0, 72, 72), (72, 72), model.processor, model.model.config, count) is not None
    assert box_tokens((0, 0, 72, 72), (72, 72), model.processor, model.model.config, count - 3) is None


def test_the_class_token_shifts_the_others(llava):
    plain = box_tokens((0, 0, 8, 8), (72, 72), llava.processor, llava.model.config, 81)
    kept = box_tokens((0, 0, 8, 8), (72, 72), llava.processor, llava.model.config, 82)
    assert kept.tolist() == [False, *plain.tolist()]


def test_an_unknown_way_of_resizing_has_no_answer(llava, monkeypatch):
    # `do_pad` squares the picture first; where the pixels go then is not retraced.
    monkeypatch.setattr(llava.processor.image_processor, "do_pad", True, raising=False)
    assert box_tokens((0, 0, 8, 8), (72, 72), llava.processor, llava.model.config, 81) is None


@pytest.mark.parametrize("box", [(10, 10, 10, 10), (-50, -50, -10, -10), (500, 500, 600, 600)])
def test_an_empty_or_outside_box_marks_at_most_what_it_touches(model, box):
    inside = box_tokens(box, (72, 72), model.processor, model.model.config, model.geometry.image_tokens)
    assert inside is None or inside.sum() <= 2
