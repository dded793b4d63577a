"""Tiny Idefics3 and SmolVLM checkpoints: pictures in tiles, each of which has its place written before its tokens.

Owns their geometry and files.
"""

from pathlib import Path
from typing import Any, Final

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from tiny_families.family import Family
from tiny_families.parts import IMAGE, special_ids, word_tokenizer, write_checkpoint

_CONTENT: Final = (
    "{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'] is string %}: {{ message['content'] }}{% else %}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}"
    "{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

_TILE: Final = 48
_PLACES: Final = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]


def make_idefics3(path: Path, *, seed: int = 0) -> Path:
    """Write an Idefics3 checkpoint: 4 layers, 6 heads in 3 KV groups; 4 tiles and the whole, 16 image tokens each."""
    tokenizer = _tokenizer("<|begin_of_text|>")
    config = Idefics3Config(
        text_config=LlamaConfig(**_text(tokenizer), num_hidden_layers=4, num_attention_heads=6),
        vision_config=_vision(),
        **_model(tokenizer),
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**_sizes()),
        tokenizer,
        image_seq_len=16,
        chat_template="<|begin_of_text|>" + _CONTENT,
    )
    return write_checkpoint(path, Idefics3ForConditionalGeneration(config), processor, seed=seed)


def make_smolvlm(path: Path, *, seed: int = 0) -> Path:
    """Write a SmolVLM checkpoint: 5 layers, 9 heads in 3 KV groups; 4 tiles and the whole, 16 image tokens each."""
    tokenizer = _tokenizer("<|im_start|>")
    config = SmolVLMConfig(
        text_config=LlamaConfig(**_text(tokenizer), num_hidden_layers=5, num_attention_heads=9),
        vision_config=_vision(),
        **_model(tokenizer),
    )
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**_sizes()),
        tokenizer,
        SmolVLMVideoProcessor(size={"longest_edge": _TILE}, max_image_size={"longest_edge": _TILE}),
        image_seq_len=16,
        chat_template="<|im_start|>" + _CONTENT,
    )
    return write_checkpoint(path, SmolVLMForConditionalGeneration(config), processor, seed=seed)


def _tokenizer(beginning: str) -> PreTrainedTokenizerFast:
    others = ["<fake_token_around_image>", "<global-img>", *_PLACES, "<end_of_utterance>"]
    return word_tokenizer(beginning, "<|end_of_text|>", "<pad>", "<image>", others)


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        **special_ids(tokenizer),
        "hidden_size": 144,
        "intermediate_size": 176,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "max_position_embeddings": 2048,
    }


def _vision() -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": _TILE,
        "patch_size": 6,
    }


def _model(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"image_token_id": IMAGE, "scale_factor": 2, "pad_token_id": tokenizer.pad_token_id}


def _sizes() -> dict[str, Any]:
    return {"size": {"longest_edge": 2 * _TILE}, "max_image_size": {"longest_edge": _TILE}}


IDEFICS3: Final = (
    Family(
        "idefics3",
        "Idefics3ForConditionalGeneration",
        make_idefics3,
        opening="<|begin_of_text|>User:",
        picture="<image>",
        closing="<end_of_utterance>\nAssistant:",
        harmless=("<fake_token_around_image>", "<global-img>", "<row_1_col_1>"),
    ),
    Family(
        "smolvlm",
        "SmolVLMForConditionalGeneration",
        make_smolvlm,
        opening="<|im_start|>User:",
        picture="<image>",
        closing="<end_of_utterance>\nAssistant:",
        harmless=("<fake_token_around_image>", "<global-img>", "<row_1_col_1>"),
    ),
)
