"""Models as they are published: transformers' configuration of their sizes, their processor with a small vocabulary.

Owns the published sizes beside those that `calibrate.models.known` has. Knows nothing of heads or plans.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tiny_families import FAMILIES
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    Glm4vConfig,
    Idefics3Config,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    Mistral3Config,
    MistralConfig,
    Phi3Config,
    PixtralVisionConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    SmolVLMConfig,
    VipLlavaConfig,
)

from calibrate.models.known import KNOWN

WIDTHS: Final = {
    "llava-onevision-0.5b": 4864, "llava-onevision-7b": 18944,
    "qwen2.5-vl-3b": 11008, "qwen2.5-vl-7b": 18944, "qwen2.5-vl-32b": 27648, "qwen2.5-vl-72b": 29568,
    "qwen3-vl-2b": 6144, "qwen3-vl-4b": 9728, "qwen3-vl-8b": 12288, "qwen3-vl-30b-a3b": 6144,
    "internvl3-1b": 4864, "internvl3-8b": 18944,
    "internvl3.5-1b": 3072, "internvl3.5-2b": 6144, "internvl3.5-4b": 9728, "internvl3.5-8b": 12288,
    "mistral-small-3.1-24b": 32768, "pixtral-12b": 14336, "glm-4.1v-9b": 13696, "idefics3-8b": 14336,
    "smolvlm-256m": 1536, "smolvlm-500m": 2560, "smolvlm-2b": 8192,
    "smolvlm2-256m": 1536, "smolvlm2-500m": 2560, "smolvlm2-2.2b": 8192,
}  # fmt: skip
"""Of the decoder's feed-forward layers."""

_CLIP: Final = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip


def family_of(alias: str) -> str | None:
    """The tiny family of the same architecture and kind of decoder; `None` for LLaVA's and ViP-LLaVA's own tests."""
    kind = KNOWN[alias].model_type
    if kind == "internvl":
        return "internvl-qwen3" if "3.5" in alias else "internvl-qwen2"
    if alias == "pixtral-12b":
        return "pixtral"
    names = {
        "llava_onevision": "llava-onevision", "qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl", "glm4v": "glm-4.1v",
        "qwen3_vl_moe": "qwen3-vl-moe", "mistral3": "mistral3", "idefics3": "idefics3", "smolvlm": "smolvlm",
    }  # fmt: skip
    return names.get(kind)


def published_config(alias: str) -> PreTrainedConfig:
    """transformers' configuration of a model's published sizes."""
    return _paper(alias) if family_of(alias) is None else _CURRENT[KNOWN[alias].model_type](alias)


def _paper(alias: str) -> PreTrainedConfig:
    """From the sizes that the decoder's publisher gives."""
    kind = {"llava_next": LlavaNextConfig, "llava": LlavaConfig}.get(KNOWN[alias].model_type, VipLlavaConfig)
    if "mistral" in alias:
        text: PreTrainedConfig = MistralConfig(intermediate_size=14336, num_key_value_heads=8, vocab_size=32064)
    elif "llama-3" in alias:
        text = LlamaConfig(intermediate_size=14336, num_key_value_heads=8, vocab_size=128256)
    elif "phi-3" in alias:
        text = Phi3Config(pad_token_id=0)
    elif "13b" in alias:
        sizes = {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40}
        text = LlamaConfig(**sizes, intermediate_size=13824, vocab_size=32064)
    else:
        text = LlamaConfig(vocab_size=32064)
    return kind(vision_config=CLIPVisionConfig(**_CLIP), text_config=text)


def _decoder(alias: str, vocabulary: int, **more: Any) -> dict[str, Any]:
    known = KNOWN[alias]
    return {
        "num_hidden_layers": known.layers,
        "num_attention_heads": known.query_heads,
        "num_key_value_heads": known.kv_heads,
        "hidden_size": known.hidden_size,
        "intermediate_size": WIDTHS[alias],
        "vocab_size": vocabulary,
        **more,
    }


def _onevision(alias: str) -> PreTrainedConfig:
    return LlavaOnevisionConfig(text_config=Qwen2Config(**_decoder(alias, 152000)))


def _qwen2_5(alias: str) -> PreTrainedConfig:
    vision = {"hidden_size": 1280, "out_hidden_size": KNOWN[alias].hidden_size, "intermediate_size": 3420}
    return Qwen2_5_VLConfig(text_config=_decoder(alias, 152064), vision_config=vision)


def _qwen3(alias: str) -> PreTrainedConfig:
    text = _decoder(alias, 151936, head_dim=128)
    vision = {"out_hidden_size": KNOWN[alias].hidden_size}
    if "30b" in alias:
        experts = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
        return Qwen3VLMoeConfig(text_config=text | experts, vision_config=vision)
    return Qwen3VLConfig(text_config=text, vision_config=vision)


def _internvl(alias: str) -> PreTrainedConfig:
    sizes = _decoder(alias, 151936, tie_word_embeddings=False)
    text = Qwen3Config(**sizes, head_dim=128) if "3.5" in alias else Qwen2Config(**sizes)
    return InternVLConfig(text_config=text, tie_word_embeddings=False)


def _mistral3(alias: str) -> PreTrainedConfig:
    text = MistralConfig(**_decoder(alias, 131072, head_dim=128, sliding_window=None))
    vision = PixtralVisionConfig(hidden_size=1024, intermediate_size=4096, image_size=1540, patch_size=14)
    return Mistral3Config(text_config=text, vision_config=vision)


def _pixtral(alias: str) -> PreTrainedConfig:
    text = MistralConfig(**_decoder(alias, 131072, head_dim=128, sliding_window=None))
    vision = PixtralVisionConfig(image_size=1024, patch_size=16)
    return LlavaConfig(
        text_config=text, vision_config=vision, vision_feature_layer=-1, vision_feature_select_strategy="full"
    )


def _glm4v(alias: str) -> PreTrainedConfig:
    return Glm4vConfig(text_config=_decoder(alias, 151552, attention_bias=True))


_TILES: Final = {"idefics3-8b": (364, 14, 2), "smolvlm-2b": (384, 14, 3), "smolvlm2-2.2b": (384, 14, 3)}
"""Pixels along a tile's side, along a patch's, and patches along the side of what becomes one token."""


def _tiles(alias: str) -> tuple[int, int, int]:
    return _TILES.get(alias, (512, 16, 4))


def _idefics3(alias: str) -> PreTrainedConfig:
    tile, patch, factor = _tiles(alias)
    sizes = _decoder(alias, 128259 if alias == "idefics3-8b" else 49280, pad_token_id=2)
    kind = {"idefics3": Idefics3Config, "smolvlm": SmolVLMConfig}[KNOWN[alias].model_type]
    vision = {"image_size": tile, "patch_size": patch, "hidden_size": 1152}
    return kind(text_config=LlamaConfig(**sizes), vision_config=vision, scale_factor=factor)


_CURRENT: Final[dict[str, Callable[[str], PreTrainedConfig]]] = {
    "llava_onevision": _onevision,
    "qwen2_5_vl": _qwen2_5,
    "qwen3_vl": _qwen3,
    "qwen3_vl_moe": _qwen3,
    "internvl": _internvl,
    "mistral3": _mistral3,
    "llava": _pixtral,
    "glm4v": _glm4v,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
}


def published_processor(alias: str, folder: Path) -> Any:
    """A processor with the sizes of a published one's image processor, and the tokenizer of its tiny family."""
    name = family_of(alias)
    assert name is not None
    FAMILIES[name].make(folder)
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    images, own = _processing(alias)
    content["image_processor"] |= images
    file.write_text(json.dumps(content | own))
    return AutoProcessor.from_pretrained(folder)


def _processing(alias: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the image processor and of the processor, as `preprocessor_config.json` and its like have them."""
    kind = KNOWN[alias].model_type
    if kind == "llava_onevision":
        grid = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
        size = {"height": 384, "width": 384}
        return {"size": size, "image_grid_pinpoints": grid}, {"num_image_tokens": 729}
    if kind == "qwen2_5_vl":
        return {"patch_size": 14, "size": {"shortest_edge": 56 * 56, "longest_edge": 12845056}}, {}
    if kind in {"qwen3_vl", "qwen3_vl_moe"}:
        return {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}}, {}
    if kind == "internvl":
        return {"size": {"height": 448, "width": 448}, "max_patches": 12}, {"image_seq_length": 256}
    if kind == "mistral3":
        return {"patch_size": {"height": 14, "width": 14}, "size": {"longest_edge": 1540}}, {"patch_size": 14}
    if kind == "llava":
        return {"patch_size": {"height": 16, "width": 16}, "size": {"longest_edge": 1024}}, {"patch_size": 16}
    if kind == "glm4v":
        return {"patch_size": 14, "size": {"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 15000}}, {}
    tile, patch, factor = _tiles(alias)
    images = {"size": {"longest_edge": 4 * tile}, "max_image_size": {"longest_edge": tile}}
    return images, {"image_seq_len": (tile // patch // factor) ** 2}
