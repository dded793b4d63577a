"""Prompts of calibration against those of vLLM's own renderer and processor, token by token."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import vllm_prompts
from engine_host import EngineHost, call, image
from tiny_models import CHAT_TEMPLATE, make_tiny_llava, make_tiny_llava_next

from calibrate.datasets.sample import Sample
from calibrate.models.loading import LoadedModel, load_model
from calibrate.models.prompts import make_prompt

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SEED = 20262
QUESTION = "how many red circles are there ?"
SIZES = {"layers": 1, "query_heads": 2}

CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "llava": lambda path: make_tiny_llava(path, **SIZES),
    "llava with the class token": lambda path: make_tiny_llava(path, strategy="full", **SIZES),
    "llava, siglip": lambda path: make_tiny_llava(path, tower="siglip", **SIZES),
    "llava, siglip less one": lambda path: make_tiny_llava(path, tower="siglip", strategy="default", **SIZES),
    "next": lambda path: make_tiny_llava_next(path, **SIZES),
    "next, siglip": lambda path: make_tiny_llava_next(path, tower="siglip", **SIZES),
}

ORDER_KEPT = (
    "{{ bos_token }}{% for message in messages %}USER: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}\n{% endfor %}{% endfor %}ASSISTANT:"
)
ONE_TEXT = "{% for message in messages %}USER: {{ message['content'] }} {% endfor %}ASSISTANT:"


def as_old_releases_saved_it(folder: Path) -> Path:
    """Take away what processors of old releases lack: the file that says how many tokens a picture takes."""
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").unlink()
    kept = processor["image_processor"] | {"processor_class": processor["processor_class"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(kept))
    return folder


def sample(seed: int, size: tuple[int, int], question: str = QUESTION, **fields: Any) -> Sample:
    return Sample(str(seed), image(seed, size), question, "1", "a", ("1", "2"), **fields)


def served(host: EngineHost, model: Path, samples: list[Sample], template: str | None = None) -> list[list[int]]:
    messages = [vllm_prompts.message(one.image, one.question, picture_last=one.picture_last) for one in samples]
    outcome = host.do(call(vllm_prompts.chat_prompts, str(model), messages, template))
    assert outcome.failure is None, outcome.failure
    prompts: list[list[int]] = outcome.probed
    return prompts


def calibrated(loaded: LoadedModel, samples: list[Sample]) -> list[list[int]]:
    return [make_prompt(loaded, one).tokens.tolist() for one in samples]


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_pictures_have_as_many_tokens_as_served(kind: str, engine_host: EngineHost, tmp_path: Path) -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    folder = as_old_releases_saved_it(CHECKPOINTS[kind](tmp_path / "model"))
    samples = [sample(seed, (rng.randint(20, 300), rng.randint(20, 300))) for seed in range(6)]
    loaded = load_model(str(folder), "float32", "cpu")
    prompts = calibrated(loaded, samples)
    assert prompts == served(engine_host, folder, samples)
    square = make_prompt(loaded, sample(0, (200, 200)))
    assert int(square.image.sum()) == loaded.geometry.image_tokens


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("plain") / "model", **SIZES)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, ORDER_KEPT, ONE_TEXT], ids=["pictures first", "in order", "text"])
@pytest.mark.parametrize("first_token", ["written", "added"])
def test_templates_of_every_form(template: str, first_token: str, engine_host: EngineHost, plain: Path, tmp_path: Path):
    folder = plain
    if first_token == "added":  # as Llama's tokenizers do, unless a chat template is rendered
        folder = shutil.copytree(plain, tmp_path / "model")
        saved = json.loads((folder / "tokenizer.json").read_text())
        one, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
        saved["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [one, text],
            "pair": [one, text],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        }
        (folder / "tokenizer.json").write_text(json.dumps(saved))
    loaded = load_model(str(folder), "float32", "cpu")
    loaded.processor.chat_template = template
    samples = [sample(1, (90, 60)), sample(2, (60, 90), picture_last=True)]
    assert calibrated(loaded, samples) == served(engine_host, folder, samples, template)


def test_a_placeholder_at_the_beginning_or_end_is_where_the_picture_goes(engine_host: EngineHost, plain: Path):
    loaded = load_model(str(plain), "float32", "cpu")
    loaded.processor.chat_template = ORDER_KEPT
    first, last = sample(1, (90, 60)), sample(1, (90, 60), picture_last=True)
    texts = [f"<image>\n{QUESTION}", f"  <image>{QUESTION}", f"{QUESTION}\n<image>", f"{QUESTION} <image> "]
    written = [replace(first, question=text) for text in texts]
    assert calibrated(loaded, written) == served(engine_host, plain, [first, first, last, last], ORDER_KEPT)


def test_an_image_token_by_another_name(engine_host: EngineHost, plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"):
        (folder / file).write_text((folder / file).read_text().replace("<image>", "[PICTURE]"))
    loaded = load_model(str(folder), "float32", "cpu")
    samples = [sample(1, (90, 60))]
    assert calibrated(loaded, samples) == served(engine_host, folder, samples)
    assert calibrated(loaded, [replace(samples[0], question=f"[PICTURE]\n{QUESTION}")]) == calibrated(loaded, samples)
