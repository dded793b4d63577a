"""Tiny InternVL checkpoints in transformers' own format, with a Qwen2 and a Qwen3 decoder: tiles of one size.

Owns their geometry and files.
"""

from pathlib import Path
from typing import Any, Final

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from tiny_families.family import Family
from tiny_families.parts import IMAGE, special_ids, word_tokenizer, write_checkpoint

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% elif part['type'] == 'video' %}<video>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_TILE: Final = 48


def make_internvl_qwen2(path: Path, *, seed: int = 0) -> Path:
    """Write an InternVL3 checkpoint: 4 layers, 6 heads in 2 KV groups; 16 image tokens for each of up to 3 tiles."""
    tokenizer = _tokenizer()
    text = Qwen2Config(**_text(tokenizer), hidden_size=192, num_hidden_layers=4, num_attention_heads=6)
    return _make(path, tokenizer, text, seed)


def make_internvl_qwen3(path: Path, *, seed: int = 0) -> Path:
    """Write an InternVL3.5 checkpoint, whose decoder norms queries and keys: 5 layers, 8 heads in 2 KV groups."""
    tokenizer = _tokenizer()
    text = Qwen3Config(**_text(tokenizer), hidden_size=120, num_hidden_layers=5, num_attention_heads=8, head_dim=32)
    return _make(path, tokenizer, text, seed)


def _make(path: Path, tokenizer: PreTrainedTokenizerFast, text: PreTrainedConfig, seed: int) -> Path:
    config = InternVLConfig(
        text_config=text,
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 112,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": [_TILE, _TILE],
            "patch_size": [6, 6],
            "attention_bias": True,
        },
        image_token_id=IMAGE,
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    size = {"size": {"height": _TILE, "width": _TILE}}
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(**size, crop_to_patches=True, min_patches=1, max_patches=3),
        tokenizer,
        InternVLVideoProcessor(**size),
        image_seq_length=16,
        chat_template=CHAT_TEMPLATE,
    )
    return write_checkpoint(
        path,
        InternVLForConditionalGeneration(config),
        processor,
        seed=seed,
        names=[
            ("model.language_model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
            ("model.", ""),
        ],
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    own = {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    }
    others = ["<img>", "</img>", "<video>"]
    return word_tokenizer(
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<IMG_CONTEXT>", others, extra_special_tokens=own
    )


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        **special_ids(tokenizer),
        "intermediate_size": 176,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }


_PROMPT: Final[dict[str, Any]] = {
    "opening": "<|im_start|>user\n",
    "picture": "<IMG_CONTEXT>\n",
    "video": "<video>\n",
    "stands_for": ("<IMG_CONTEXT>", "<video>"),
    "harmless": ("<img>", "</img>"),
    "closing": "<|im_end|>\n<|im_start|>assistant\n",
}

INTERNVL: Final = (
    Family("internvl-qwen2", "InternVLForConditionalGeneration", make_internvl_qwen2, **_PROMPT),
    Family("internvl-qwen3", "InternVLForConditionalGeneration", make_internvl_qwen3, **_PROMPT),
)
