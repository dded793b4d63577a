"""A tiny LLaVA-OneVision checkpoint: SigLIP tower, Qwen2 decoder with biases, tiles of pictures.

Owns its geometry and files.
"""

from pathlib import Path
from typing import Final

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)

from tiny_families.family import Family
from tiny_families.parts import IMAGE, special_ids, word_tokenizer, write_checkpoint

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}<video>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_TILE: Final = 40


def make_llava_onevision(path: Path, *, seed: int = 0) -> Path:
    """Write a checkpoint: 4 layers, 6 heads in 2 KV groups; up to four tiles of 5 by 5 patches.

    A square picture larger than a tile has 25 image tokens of the whole, 100 of the tiles and 10 ends of rows.
    """
    tokenizer = word_tokenizer("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<image>", ["<video>"])
    pinpoints = [[_TILE * rows, _TILE * columns] for rows, columns in ((1, 1), (1, 2), (2, 1), (2, 2))]
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(
            **special_ids(tokenizer),
            hidden_size=192,
            intermediate_size=176,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=2048,
        ),
        vision_config=SiglipVisionConfig(
            hidden_size=64,
            intermediate_size=112,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=_TILE,
            patch_size=8,
            vision_use_head=False,
        ),
        image_token_index=IMAGE,
        video_token_index=5,
        image_grid_pinpoints=pinpoints,
    )
    size = {"size": {"height": _TILE, "width": _TILE}}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(**size, image_grid_pinpoints=pinpoints),
        tokenizer,
        LlavaOnevisionVideoProcessor(**size),
        num_image_tokens=25,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )
    return write_checkpoint(
        path,
        LlavaOnevisionForConditionalGeneration(config),
        processor,
        seed=seed,
        names=[
            ("model.language_model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
            ("model.vision_tower.", "vision_tower.vision_model."),
            ("model.", ""),
        ],
    )


LLAVA_ONEVISION: Final = Family(
    "llava-onevision",
    "LlavaOnevisionForConditionalGeneration",
    make_llava_onevision,
    opening="<|im_start|>user ",
    picture="<image>\n",
    video="<video>\n",
    stands_for=("<image>", "<video>"),
    closing="<|im_end|><|im_start|>assistant\n",
)
