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
from engine_host import EngineHost, call
from engine_prompts import image
from tiny_models import CHAT_TEMPLATE, make_tiny_llava, make_tiny_llava_next, make_tiny_vip_llava
from transformers import AutoProcessor

from calibrate.datasets.sample import Sample
from calibrate.models.chat_template import find_chat_template
from calibrate.models.content_format import content_format
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
    "vip": lambda path: make_tiny_vip_llava(path, **SIZES),
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


def keep_template(folder: Path, where: str) -> None:
    """Put a checkpoint's chat template where some release kept it."""
    template = "of {{ messages }} " + where
    (folder / "chat_template.jinja").unlink()
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    if "chat_template.json" in where:
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    if "chat_template.jinja" in where:
        (folder / "chat_template.jinja").write_text(template)
    if "tokenizer_config.json" in where:
        tokenizer["chat_template"] = "the tokenizer's " + template
    if "several" in where:
        tokenizer["chat_template"] = [
            {"name": name, "template": f"{name} {template}"} for name in ("tool_use", "default", "rag")
        ]
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


PLACES = (
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer_config.json",
    "chat_template.json and tokenizer_config.json",
    "chat_template.jinja and tokenizer_config.json",
    "several in tokenizer",
    "nowhere",
)


def test_templates_are_found_where_vllm_finds_them(engine_host: EngineHost, plain: Path, tmp_path: Path) -> None:
    folders = [shutil.copytree(plain, tmp_path / place.replace(" ", "-")) for place in PLACES]
    found = []
    for folder, place in zip(folders, PLACES, strict=True):
        keep_template(folder, place)
        found.append(find_chat_template(AutoProcessor.from_pretrained(folder, backend="pil"), "llava"))
    outcome = engine_host.do(call(vllm_prompts.templates, [str(folder) for folder in folders]))
    assert outcome.failure is None, outcome.failure
    assert [one.text if one.source != "fallback" else None for one in found] == outcome.probed
    assert [one.source for one in found] == [
        *("processor", "processor", "tokenizer", "processor", "processor", "tokenizer", "fallback")
    ]

    outcome = engine_host.do(call(vllm_prompts.templates_in_force, [(str(one), None, "auto") for one in folders]))
    assert outcome.failure is None, outcome.failure
    expected = [(one.text, one.content_format) if one.source != "fallback" else None for one in found]
    assert outcome.probed == expected


def test_a_template_that_a_server_is_given(engine_host: EngineHost, plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(ONE_TEXT)
    asked = [(str(plain), str(path), "auto"), (str(plain), ORDER_KEPT, "auto"), (str(plain), None, "string")]
    outcome = engine_host.do(call(vllm_prompts.templates_in_force, asked))
    assert outcome.failure is None, outcome.failure
    assert outcome.probed == [(ONE_TEXT, "string"), (ORDER_KEPT, "openai"), (CHAT_TEMPLATE, "string")]


FORMS = [
    CHAT_TEMPLATE,
    ORDER_KEPT,
    ONE_TEXT,
    "{{ messages[0].content }}",
    "{{ messages",
    "{% for m in messages %}{% for p in m['content'] | selectattr('type', 'eq', 'image') %}i{% endfor %}{% endfor %}",
    "{% for m in messages[1:] %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
    "{% set rest = messages[1:] %}{% for m in rest %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% set content = m.content %}{% for p in content %}{{ p }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% set said = m.content %}{% for p in said %}{{ p }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% for k, v in m.content %}{{ k }}{% endfor %}{% endfor %}",
    "{% for a, b in messages %}{{ a }}{% endfor %}",
    "{% for m in messages %}{{ m.content | trim }}{% endfor %}{% for tool in tools %}{{ tool }}{% endfor %}",
    "{% macro say(c) %}{% for p in c %}{{ p.text }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ say(m.content) }}{% endfor %}",
    "{% macro say(c) %}{% for p in c %}{{ p.text }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ say(c=m['content']) }}{% endfor %}",
    "{% macro say(c) %}{% for p in c %}{{ p.text }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ say(m.role) }}{% endfor %}",
    "{% macro say(content) %}{% for p in content %}{{ p }}{% endfor %}{% endmacro %}{{ say('x') }}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
]


def test_content_is_taken_for_what_vllm_takes_it(engine_host: EngineHost) -> None:
    outcome = engine_host.do(call(vllm_prompts.content_formats, FORMS))
    assert outcome.failure is None, outcome.failure
    assert dict(zip(FORMS, map(content_format, FORMS), strict=True)) == dict(zip(FORMS, outcome.probed, strict=True))
    assert set(outcome.probed) == {"openai", "string"}
