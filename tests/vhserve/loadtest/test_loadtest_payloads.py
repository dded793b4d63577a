"""What is sent: real pictures, new to every cache unless asked otherwise, the same for the same seed."""

import base64
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from vhserve.loadtest.payloads import Payloads, png
from vhserve.loadtest.workload import Workload

LOAD = Workload(seed=3, model="m", image_size=48, output_tokens=7, prompt_words=5)


def content(body: bytes):
    return json.loads(body)["messages"][0]["content"]


def picture(body: bytes) -> bytes:
    return base64.b64decode(content(body)[0]["image_url"]["url"].removeprefix("data:image/png;base64,"), validate=True)


def test_pngs_hold_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (9, 5))
        assert (np.asarray(image) == pixels).all()


def test_every_picture_is_new() -> None:
    seen = set()
    for place in ((0, 0), (0, 1), (1, 0)):
        payloads = Payloads(LOAD, place)
        for number in range(60):
            with Image.open(io.BytesIO(picture(payloads.make(number).body))) as image:
                assert image.size == (48, 48)
                seen.add(image.tobytes())
    assert len(seen) == 180


def test_a_seed_gives_the_same_bytes() -> None:
    first, again, other = Payloads(LOAD), Payloads(LOAD), Payloads(LOAD.model_copy(update={"seed": 4}))
    assert first.make(5) == again.make(5)
    assert first.make(5) != other.make(5)


def test_replies_have_a_fixed_length_unless_the_model_ends_them() -> None:
    request = json.loads(Payloads(LOAD).make(0).body)
    assert request["max_tokens"] == request["min_tokens"] == 7
    assert request["ignore_eos"]
    assert request["stream"]
    assert request["model"] == "m"
    assert len(content(Payloads(LOAD).make(0).body)[1]["text"].split()) == 5
    free = json.loads(Payloads(LOAD.model_copy(update={"free_length": True})).make(0).body)
    assert not {"min_tokens", "ignore_eos", "skip_special_tokens"} & free.keys()


def test_shares_of_text_repeated_pictures_and_aborts() -> None:
    mix = {"image_share": 0.75, "repeated_share": 0.4, "abort_share": 0.2, "pool": 3}
    payloads = Payloads(LOAD.model_copy(update=mix))
    made = [payloads.make(number) for number in range(2000)]
    kinds = Counter(one.kind for one in made)
    assert kinds["text"] == pytest.approx(500, abs=80)
    assert kinds["repeated"] == pytest.approx(600, abs=80)
    assert all(isinstance(content(one.body), str) for one in made if one.kind == "text")
    assert len({picture(one.body) for one in made if one.kind == "repeated"}) == 3
    assert len({picture(one.body) for one in made if one.kind == "image"}) == kinds["image"]
    aborts = [one.abort_after for one in made if one.abort_after is not None]
    assert len(aborts) == pytest.approx(400, abs=80)
    assert set(aborts) == set(range(1, 8))
