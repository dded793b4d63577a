"""A tiny GLM-4.1V checkpoint: norms behind attention and MLP, a rotary embedding of half a head in three dimensions.

Owns its geometry and files.
"""

from pathlib import Path
from typing import Any, Final

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
)

from tiny_families.family import Family
from tiny_families.parts import IMAGE, rope_as_published, special_ids, word_tokenizer, write_checkpoint

CHAT_TEMPLATE: Final = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|begin_of_image|><|image|><|end_of_image|>"
    "{% elif part['type'] == 'video' %}<|begin_of_video|><|video|><|end_of_video|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

_OTHERS: Final = (
    "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|video|>",
    "<sop>", "<|user|>", "<|assistant|>",
)  # fmt: skip


def make_glm4v(path: Path, *, seed: int = 0) -> Path:
    """Write a GLM-4.1V checkpoint: 4 layers, 6 heads in 2 KV groups; a square of 72 pixels has 36 image tokens."""
    tokenizer = word_tokenizer("[gMASK]", "<|endoftext|>", "<pad>", "<|image|>", _OTHERS)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _TOKEN_FIELDS.items()}
    config = Glm4vConfig(
        text_config={
            **special_ids(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 176,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "attention_bias": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
                "partial_rotary_factor": 0.5,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 80,
            "intermediate_size": 112,
            "num_heads": 2,
            "image_size": 72,
            "patch_size": 6,
            "out_hidden_size": 192,
        },
        image_token_id=IMAGE,
        **ids,
    )
    images = {"patch_size": 6, "size": {"shortest_edge": 2 * 24 * 24, "longest_edge": 2 * 96 * 96}}
    processor = Glm4vProcessor(
        Glm4vImageProcessor(**images), tokenizer, Glm4vVideoProcessor(**images), chat_template=CHAT_TEMPLATE
    )
    return write_checkpoint(path, Glm4vForConditionalGeneration(config), processor, seed=seed, config=_as_published)


_TOKEN_FIELDS: Final = {
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}


def _as_published(config: dict[str, Any]) -> dict[str, Any]:
    text = rope_as_published(config["text_config"])
    text["partial_rotary_factor"] = text["rope_scaling"].pop("partial_rotary_factor")
    return {**config, "text_config": text}


GLM4V: Final = Family(
    "glm-4.1v",
    "Glm4vForConditionalGeneration",
    make_glm4v,
    opening="[gMASK]<sop><|user|>\n",
    picture="<|begin_of_image|><|image|><|end_of_image|>",
    closing="<|assistant|>\n",
    video="<|begin_of_video|><|video|><|end_of_video|>",
    stands_for=("<|image|>", "<|begin_of_video|><|video|><|end_of_video|>"),
    harmless=("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>"),
)
