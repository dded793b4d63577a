"""Pictures in calibration against the server's: a file through vLLM's chat route, pixel by pixel, or both refuse."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vllm_prompts
from engine_host import EngineHost, call
from hypothesis import HealthCheck, example, given, settings
from picture_files import changed, encoded, noise, orientation, picture_files
from PIL import Image
from tiny_models import make_tiny_llava, make_tiny_llava_next

from calibrate.datasets.pictures import load_picture
from calibrate.datasets.sample import Sample
from calibrate.errors import PictureTooLarge
from calibrate.models.loading import LoadedModel, load_model
from calibrate.models.prompts import make_prompt
from vhserve.evaluation.chat import sample_message

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # Pillow's, of damaged files; the host has its own
]

MAKE: dict[str, Callable[..., Path]] = {"llava": make_tiny_llava, "llava_next": make_tiny_llava_next}
_TURNED = encoded(noise("RGB", (60, 72), 5), exif=orientation(6))
TURNED_AND_BROKEN = changed(_TURNED, [(len(_TURNED) // 2, _TURNED[len(_TURNED) // 2] ^ 255)])
"""Its orientation is whole, its data are not: Pillow shows as much as it has, when it is asked a second time."""
TALL = encoded(Image.new("L", (1, 12_000)))


@pytest.fixture(scope="module", params=sorted(MAKE))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = MAKE[request.param](tmp_path_factory.mktemp("pictures") / request.param, layers=1, query_heads=2)
    return load_model(str(folder))


def calibrated(loaded: LoadedModel, file: bytes) -> dict[str, Any] | str:
    try:
        picture = load_picture(file)
        prompt = make_prompt(loaded, Sample("s", picture.image, "?", "1", "a", ("1", "2"), file=picture.file))
    except (ValueError, PictureTooLarge) as error:
        return str(error)
    return {name: values[0].numpy() for name, values in prompt.pixels.items()}


def served(host: EngineHost, loaded: LoadedModel, urls: list[str]) -> list[dict[str, Any] | str]:
    outcome = host.do(call(vllm_prompts.pixels_of, loaded.ref.name, urls))
    assert outcome.failure is None, outcome.failure
    answers: list[dict[str, Any] | str] = outcome.probed
    return answers


def data_url(file: bytes) -> str:
    return f"data:image/x;base64,{base64.b64encode(file).decode()}"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@example(file=TALL)
@example(file=encoded(noise("RGB", (1, 300), 1), "JPEG"))
@example(file=encoded(noise("CMYK", (90, 60), 2), "JPEG"))
@example(file=encoded(noise("I;16", (90, 60), 3)))
@example(file=TURNED_AND_BROKEN)
@given(file=picture_files())
def test_what_a_model_is_shown(file: bytes, loaded: LoadedModel, engine_host: EngineHost) -> None:
    (server,), ours = served(engine_host, loaded, [data_url(file)]), calibrated(loaded, file)
    if isinstance(server, str) or isinstance(ours, str):
        assert isinstance(server, str)
        assert isinstance(ours, str)
        assert server.startswith("image 1: ")
        assert "\n" not in server + ours
        return
    assert server.keys() == ours.keys()
    for name, values in server.items():
        assert np.array_equal(values, ours[name]), name


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("data:image/png;base64,@@@", "its base64 is damaged"),
        ("data:image/png,abc", "Only base64"),
        ("data:x", "comma|,"),
    ],
)
def test_a_refusal_says_which_picture(url: str, why: str, loaded: LoadedModel, engine_host: EngineHost) -> None:
    (server,) = served(engine_host, loaded, [url])
    assert isinstance(server, str)
    assert re.match(f"image 1: .*({why})", server)


def test_a_picture_that_is_in_memory_alone_is_shown_as_it_is(loaded: LoadedModel, engine_host: EngineHost) -> None:
    sample = Sample("s", noise("RGB", (90, 61), 4), "?", "1", "a", ("1", "2"))
    url = sample_message(sample)["content"][0]["image_url"]["url"]
    (server,) = served(engine_host, loaded, [url])
    assert isinstance(server, dict)
    assert np.array_equal(server["pixel_values"], make_prompt(loaded, sample).pixels["pixel_values"][0].numpy())
