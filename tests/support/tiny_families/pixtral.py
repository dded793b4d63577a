"""Tiny checkpoints with Pixtral's vision tower: Mistral3 (Mistral Small 3.1) and Pixtral in LLaVA's format.

A picture has any size; each row of its tokens ends with a break. Owns their geometry and files.
"""

from pathlib import Path
from typing import Any, Final

from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessor,
    PixtralProcessor,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
)

from tiny_families.family import Family
from tiny_families.parts import IMAGE, special_ids, word_tokenizer, write_checkpoint

_CONTENT: Final = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST]"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}[IMG]{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}[/INST]{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def make_mistral3(path: Path, *, seed: int = 0) -> Path:
    """Write a Mistral3 checkpoint: 4 layers, 6 heads in 3 KV groups; a square of 72 pixels has 6 rows of 6 tokens."""
    tokenizer = _tokenizer()
    config = Mistral3Config(
        text_config=MistralConfig(**_text(tokenizer), num_hidden_layers=4, num_attention_heads=6),
        vision_config=_vision(),
        image_token_index=IMAGE,
        spatial_merge_size=2,
        multimodal_projector_bias=False,
        tie_word_embeddings=False,
    )
    return write_checkpoint(
        path, Mistral3ForConditionalGeneration(config), _processor(tokenizer, 2), seed=seed, names=_NAMES
    )


def make_pixtral(path: Path, *, seed: int = 0) -> Path:
    """Write a Pixtral checkpoint in LLaVA's format: 3 layers, 9 heads in 3 KV groups; 12 rows of 12 tokens."""
    tokenizer = _tokenizer()
    config = LlavaConfig(
        text_config=MistralConfig(**_text(tokenizer), num_hidden_layers=3, num_attention_heads=9),
        vision_config=_vision(),
        image_token_index=IMAGE,
        image_seq_length=1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return write_checkpoint(
        path, LlavaForConditionalGeneration(config), _processor(tokenizer, 1), seed=seed, names=_NAMES
    )


_NAMES: Final = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.", ""),
)


def _tokenizer() -> PreTrainedTokenizerFast:
    others = ["[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"]
    return word_tokenizer("<s>", "</s>", "<pad>", "[IMG]", others)


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        **special_ids(tokenizer),
        "hidden_size": 144,
        "intermediate_size": 176,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "sliding_window": None,
    }


def _vision() -> PixtralVisionConfig:
    return PixtralVisionConfig(
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=96,
        patch_size=6,
        hidden_act="silu",
    )


def _processor(tokenizer: PreTrainedTokenizerFast, merge: int) -> PixtralProcessor:
    images = PixtralImageProcessor(size={"longest_edge": 96}, patch_size={"height": 6, "width": 6})
    return PixtralProcessor(images, tokenizer, patch_size=6, spatial_merge_size=merge, chat_template=_CONTENT)


_PROMPT: Final[dict[str, Any]] = {
    "opening": "<s>[INST]",
    "picture": "[IMG]",
    "closing": "[/INST]",
    "stands_for": ("[IMG]",),
    "harmless": ("[IMG_BREAK]", "[IMG_END]"),
}

PIXTRAL: Final = (
    Family("mistral3", "Mistral3ForConditionalGeneration", make_mistral3, **_PROMPT),
    Family("pixtral", "LlavaForConditionalGeneration", make_pixtral, **_PROMPT),
)
