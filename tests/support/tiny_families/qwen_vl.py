"""Tiny Qwen2.5-VL, Qwen3-VL and Qwen3-VL-MoE checkpoints: positions in three dimensions, pictures of any size.

Owns their geometry and files.
"""

from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tiny_families.family import Family
from tiny_families.parts import IMAGE, rope_as_published, special_ids, word_tokenizer, write_checkpoint

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_OTHERS: Final = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|object_ref_start|>", "<|object_ref_end|>")
_IDS: Final = {"image_token_id": IMAGE, "vision_start_token_id": 5, "vision_end_token_id": 6, "video_token_id": 7}


def make_qwen2_5_vl(path: Path, *, seed: int = 0) -> Path:
    """Write a Qwen2.5-VL checkpoint: 4 layers, 6 heads in 3 KV groups; a square of 72 pixels has 36 image tokens."""
    tokenizer = _tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={
            **special_ids(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 176,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 5, 7]},
        },
        vision_config={
            "depth": 3,
            "hidden_size": 80,
            "intermediate_size": 112,
            "num_heads": 2,
            "patch_size": 6,
            "window_size": 36,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 192,
        },
        **_IDS,
    )
    images = {"patch_size": 6, "size": {"shortest_edge": 24 * 24, "longest_edge": 96 * 96}}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**images), tokenizer, Qwen2VLVideoProcessor(**images), chat_template=CHAT_TEMPLATE
    )
    return write_checkpoint(
        path,
        Qwen2_5_VLForConditionalGeneration(config),
        processor,
        seed=seed,
        names=[("model.language_model.", "model."), ("model.visual.", "visual.")],
        config=_flat,
    )


def make_qwen3_vl(path: Path, *, seed: int = 0) -> Path:
    """Write a Qwen3-VL checkpoint: 5 layers, 8 heads in 2 KV groups, DeepStack on the first 2; 36 image tokens."""
    tokenizer = _tokenizer()
    config = Qwen3VLConfig(
        text_config={**_text3(tokenizer), "hidden_size": 120, "num_hidden_layers": 5, "num_attention_heads": 8},
        vision_config=_vision3(out_hidden_size=120),
        **_IDS,
    )
    model = Qwen3VLForConditionalGeneration(config)
    return write_checkpoint(path, model, _processor3(tokenizer), seed=seed, config=_nested)


def make_qwen3_vl_moe(path: Path, *, seed: int = 0) -> Path:
    """Write a Qwen3-VL-MoE checkpoint: 3 layers of 4 experts, 6 heads in 2 KV groups; 36 image tokens."""
    tokenizer = _tokenizer()
    config = Qwen3VLMoeConfig(
        text_config={
            **_text3(tokenizer),
            "hidden_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 96,
            "norm_topk_prob": True,
        },
        vision_config=_vision3(out_hidden_size=128),
        **_IDS,
    )
    model = Qwen3VLMoeForConditionalGeneration(config)
    return write_checkpoint(
        path, model, _processor3(tokenizer), seed=seed, tensors=_experts_as_published, config=_nested
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|image_pad|>", _OTHERS)


def _text3(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    return {
        **special_ids(tokenizer),
        "intermediate_size": 176,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "rope_parameters": rope,
    }


def _vision3(out_hidden_size: int) -> dict[str, Any]:
    return {
        "depth": 3,
        "hidden_size": 80,
        "intermediate_size": 112,
        "num_heads": 2,
        "patch_size": 6,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 2],
        "out_hidden_size": out_hidden_size,
    }


def _processor3(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    images = {"patch_size": 6, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Qwen3VLProcessor(
        Qwen2VLImageProcessor(**images, size={"shortest_edge": 24 * 24, "longest_edge": 96 * 96}),
        tokenizer,
        Qwen3VLVideoProcessor(**images, size={"shortest_edge": 24 * 24, "longest_edge": 8 * 96 * 96}),
        chat_template=CHAT_TEMPLATE,
    )


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The decoder's fields beside the model's, as the Hub's Qwen2.5-VL has them."""
    text = rope_as_published(config.pop("text_config"))
    text["rope_scaling"] = {"type": "mrope", "mrope_section": text["rope_scaling"]["mrope_section"]}
    return {**text, **config}


def _nested(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "text_config": rope_as_published(config["text_config"])}


def _experts_as_published(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Experts' weights with their inputs in front of their outputs."""
    return weight.transpose(1, 2) if ".experts." in name else weight


_PROMPT: Final[dict[str, Any]] = {
    "opening": "<|im_start|>user\n",
    "picture": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
    "stands_for": ("<|image_pad|>", "<|video_pad|>"),
    "harmless": ("<|vision_start|>", "<|vision_end|>"),
    "closing": "<|im_end|>\n<|im_start|>assistant\n",
}

QWEN_VL: Final = (
    Family("qwen2.5-vl", "Qwen2_5_VLForConditionalGeneration", make_qwen2_5_vl, **_PROMPT),
    Family("qwen3-vl", "Qwen3VLForConditionalGeneration", make_qwen3_vl, **_PROMPT),
    Family("qwen3-vl-moe", "Qwen3VLMoeForConditionalGeneration", make_qwen3_vl_moe, **_PROMPT),
)
