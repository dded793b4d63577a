"""The shipped demo model: it loads from its files, is named as on the Hub, and answers held-out questions."""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from answering import answer_all
from safetensors import safe_open
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from calibrate.datasets import open_dataset
from calibrate.datasets.synthetic import FAMILIES, make_sample, samples
from calibrate.datasets.synthetic.vocabulary import CELLS
from calibrate.demo import MODEL_DIR
from calibrate.demo.build import ASSISTANT, IMAGE, USER, build_config, build_tokenizer, hub_name
from calibrate.models.loading import LoadedModel, load_model


@pytest.fixture(scope="module")
def processor() -> LlavaProcessor:
    return LlavaProcessor.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load_model(str(MODEL_DIR), "float32", "cpu")


def prompt(processor: LlavaProcessor, question: str) -> str:
    """One picture and one question, through the chat template."""
    content: Any = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def test_it_answers_held_out_questions(demo: LoadedModel) -> None:
    """Floor far below what is measured on 1,000 samples: this catches wrong files, not small losses."""
    asked = open_dataset("synthetic", samples=8 * len(FAMILIES), seed=0, split="measuring")
    answered = answer_all(demo, asked)
    assert set(answered.families) == set(FAMILIES)
    assert answered.right.mean() >= 0.9


def test_it_stops_after_its_answer(demo: LoadedModel, processor: LlavaProcessor) -> None:
    sample = make_sample("object", 1)
    inputs: Any = processor(text=prompt(processor, sample.question), images=sample.image, return_tensors="pt")
    told = demo.model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
    assert processor.tokenizer.convert_ids_to_tokens(told.tolist()) == [sample.answer, "</s>"]


def test_files_fit_the_repository() -> None:
    weights = (MODEL_DIR / "model.safetensors").stat().st_size
    assert weights <= 16_000_000
    assert sum(f.stat().st_size for f in MODEL_DIR.iterdir()) - weights < 200_000


def test_tensors_are_named_and_shaped_as_on_the_hub() -> None:
    patterns = [
        r"language_model\.model\.embed_tokens\.weight",
        r"language_model\.model\.norm\.weight",
        r"language_model\.lm_head\.weight",
        r"language_model\.model\.layers\.\d+\.self_attn\.[qkvo]_proj\.weight",
        r"language_model\.model\.layers\.\d+\.mlp\.(gate|up|down)_proj\.weight",
        r"language_model\.model\.layers\.\d+\.(input|post_attention)_layernorm\.weight",
        r"multi_modal_projector\.linear_[12]\.(weight|bias)",
        r"vision_tower\.vision_model\.embeddings\.(class_embedding|(patch|position)_embedding\.weight)",
        r"vision_tower\.vision_model\.(pre_layrnorm|post_layernorm)\.(weight|bias)",
        r"vision_tower\.vision_model\.encoder\.layers\.\d+\.(layer_norm[12]|mlp\.fc[12])\.(weight|bias)",
        r"vision_tower\.vision_model\.encoder\.layers\.\d+\.self_attn\.([qkv]|out)_proj\.(weight|bias)",
    ]
    with safe_open(MODEL_DIR / "model.safetensors", "pt") as weights:
        assert weights.metadata() == {"format": "pt"}
        for name in weights.keys():  # noqa: SIM118 - not a mapping
            assert any(re.fullmatch(pattern, name) for pattern in patterns), name
            assert weights.get_slice(name).get_dtype() == "BF16"
        assert weights.get_slice("language_model.model.layers.11.self_attn.q_proj.weight").get_shape() == [256, 256]


def test_hub_name_is_given_once() -> None:
    inner = "vision_tower.vision_model.post_layernorm.bias"
    assert hub_name("vision_tower.post_layernorm.bias") == hub_name(inner) == inner
    assert hub_name("language_model.lm_head.weight") == "language_model.lm_head.weight"


def test_transformers_finds_every_weight() -> None:
    _, report = LlavaForConditionalGeneration.from_pretrained(MODEL_DIR, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]


def test_geometry_has_three_stages() -> None:
    text = build_config().text_config
    assert (text.num_hidden_layers % 3, text.head_dim) == (0, 32)
    assert text.num_attention_heads == text.num_key_value_heads
    shipped = json.loads((MODEL_DIR / "config.json").read_text())
    assert shipped["text_config"]["num_hidden_layers"] == text.num_hidden_layers == 12
    assert shipped["architectures"] == ["LlavaForConditionalGeneration"]


def test_prompt_is_the_same_on_every_path(processor: LlavaProcessor) -> None:
    """Chat endpoints tokenise without special tokens, processors with: it must make no difference."""
    sample = make_sample("multiple_choice", 0)
    text = prompt(processor, sample.question)
    assert text == f"USER: <image>\n{sample.question} ASSISTANT:"
    ids = processor(text=text, images=sample.image, return_tensors="pt")["input_ids"][0].tolist()
    words = processor.tokenizer.convert_ids_to_tokens(ids)
    assert words[: CELLS + 1] == [USER, *[IMAGE] * CELLS]
    assert words[CELLS + 1 :] == [*re.findall(r"\w+|[^\w\s]+", sample.question), ASSISTANT]
    with_special = processor.tokenizer(text)["input_ids"]
    assert with_special == processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_no_question_has_an_unknown_word() -> None:
    tokenizer = build_tokenizer()
    for sample in samples(200):
        ids = tokenizer(f"{sample.question} {ASSISTANT} {' '.join(sample.options)}")["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert all(len(tokenizer(option)["input_ids"]) == 1 for option in sample.options)


def test_processor_keeps_the_pixels_that_training_saw(processor: LlavaProcessor) -> None:
    sample = make_sample("super_box", 0)
    pixels = processor(text=prompt(processor, "?"), images=sample.image, return_tensors="pt")["pixel_values"][0]
    seen = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1).float() / 127.5 - 1
    assert (pixels - seen).abs().max() < 1e-6


def test_measured_accuracy_and_log_are_shipped() -> None:
    measured = json.loads((MODEL_DIR / "accuracy.json").read_text())
    assert {m["dtype"] for m in measured} == {"float32", "bfloat16"}
    for m in measured:
        assert set(m["families"]) == set(FAMILIES)
        assert all(row["samples"] >= 200 and row["accuracy"] >= 0.9 for row in m["families"].values())
    lines = [json.loads(line) for line in (MODEL_DIR / "train_log.jsonl").read_text().splitlines()]
    assert "settings" in lines[0]
    assert [line["step"] for line in lines[1:]] == sorted(line["step"] for line in lines[1:])
