"""The models that are known by a short name: the paper's nine (Bi et al., CVPR 2025, table 1), current ones, the demo.

Owns the table. Tests hold it against transformers' configurations of the published sizes, models on the meta device and
processors. Any other model works by its Hub id or folder. Does not import torch or transformers.
"""

from dataclasses import dataclass
from typing import Final, Literal

from calibrate.demo import MODEL_DIR

ARCHITECTURES: Final = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "vipllava": "VipLlavaForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "glm4v": "Glm4vForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
}
"""`model_type` values of the models that were compared with transformers, and the architecture each stands for."""


@dataclass(frozen=True)
class KnownModel:
    """One row of the table.

    Attributes
    ----------
    alias
        What `--model` takes.
    hub
        Hub id; for the demo model, the folder that it is shipped in.
    model_type
        As `config.json` says it; `llava_llama` and `llava_phi` are LLaVA's own format, which transformers cannot read.
    layers, query_heads, kv_heads, head_size, hidden_size
        Geometry of the decoder.
    image_tokens
        Tokens of one picture of the size `picture`.
    picture
        Width and height in pixels: what the vision tower sees where all pictures have one number of tokens, a square
        that has the most there are for LLaVA-1.6, and `image_tokens.USUAL_PICTURE` elsewhere.
    """

    alias: str
    hub: str
    model_type: str
    layers: int
    query_heads: int
    kv_heads: int
    head_size: int
    hidden_size: int
    image_tokens: int
    picture: tuple[int, int] = (640, 480)

    @property
    def origin(self) -> str:
        """Where it comes from, in words for a table."""
        return "shipped with vhserve" if self.alias == "demo" else self.hub

    @property
    def architecture(self) -> str | None:
        """Class in transformers; `None` when it has none."""
        return ARCHITECTURES.get(self.model_type)

    @property
    def loadable(self) -> bool:
        """Whether transformers and vLLM can read it, and `vhserve` can calibrate and serve it."""
        return self.model_type in ARCHITECTURES

    @property
    def surgery(self) -> Literal["slice"] | None:
        """What `--surgery auto` does with its unquantised weights without adapters; `None` where it is not served.

        Quantised weights, and those with adapters, are gathered whatever the model.
        """
        return "slice" if self.loadable else None

    @property
    def note(self) -> str:
        """Why it cannot be loaded; empty when it can."""
        return "" if self.loadable else "on the Hub in LLaVA's own format only: convert it to transformers' first"


_CLIP, _TILES = (336, 336), (672, 672)

# Geometry from each checkpoint's config.json, or its decoder's. The paper's table gives 24 x 32 for the two small
# ViP-LLaVA models; their configurations say 32 layers.
KNOWN: Final = {
    model.alias: model
    for model in (
        KnownModel("demo", str(MODEL_DIR), "llava", 12, 8, 8, 32, 256, 144, (96, 96)),
        KnownModel("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", "llava", 32, 32, 32, 128, 4096, 576, _CLIP),
        KnownModel("llava-1.5-13b", "llava-hf/llava-1.5-13b-hf", "llava", 40, 40, 40, 128, 5120, 576, _CLIP),
        KnownModel(
            "llava-1.6-7b", "llava-hf/llava-v1.6-vicuna-7b-hf", "llava_next", 32, 32, 32, 128, 4096, 2928, _TILES
        ),
        KnownModel(
            "llava-1.6-13b", "llava-hf/llava-v1.6-vicuna-13b-hf", "llava_next", 40, 40, 40, 128, 5120, 2928, _TILES
        ),
        KnownModel(
            "llava-1.6-mistral-7b",
            "llava-hf/llava-v1.6-mistral-7b-hf",
            "llava_next",
            32,
            32,
            8,
            128,
            4096,
            2928,
            _TILES,
        ),
        KnownModel("vip-llava-7b", "llava-hf/vip-llava-7b-hf", "vipllava", 32, 32, 32, 128, 4096, 576, _CLIP),
        KnownModel("vip-llava-13b", "llava-hf/vip-llava-13b-hf", "vipllava", 40, 40, 40, 128, 5120, 576, _CLIP),
        KnownModel(
            "vip-llava-llama-3-8b", "mucai/vip-llava-llama-3-8b", "llava_llama", 32, 32, 8, 128, 4096, 576, _CLIP
        ),
        KnownModel(
            "vip-llava-phi-3-3.8b", "mucai/vip-llava-phi-3-mini-3.8B", "llava_phi", 32, 32, 32, 96, 3072, 576, _CLIP
        ),
        KnownModel(
            "llava-onevision-0.5b",
            "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
            "llava_onevision",
            24,
            14,
            2,
            64,
            896,
            2929,
        ),
        KnownModel(
            "llava-onevision-7b",
            "llava-hf/llava-onevision-qwen2-7b-ov-hf",
            "llava_onevision",
            28,
            28,
            4,
            128,
            3584,
            2929,
        ),
        KnownModel("qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", 36, 16, 2, 128, 2048, 391),
        KnownModel("qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 28, 28, 4, 128, 3584, 391),
        KnownModel("qwen2.5-vl-32b", "Qwen/Qwen2.5-VL-32B-Instruct", "qwen2_5_vl", 64, 40, 8, 128, 5120, 391),
        KnownModel("qwen2.5-vl-72b", "Qwen/Qwen2.5-VL-72B-Instruct", "qwen2_5_vl", 80, 64, 8, 128, 8192, 391),
        KnownModel("qwen3-vl-2b", "Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", 28, 16, 8, 128, 2048, 300),
        KnownModel("qwen3-vl-4b", "Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", 36, 32, 8, 128, 2560, 300),
        KnownModel("qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 36, 32, 8, 128, 4096, 300),
        KnownModel("qwen3-vl-30b-a3b", "Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3_vl_moe", 48, 32, 4, 128, 2048, 300),
        KnownModel("internvl3-1b", "OpenGVLab/InternVL3-1B-hf", "internvl", 24, 14, 2, 64, 896, 3328),
        KnownModel("internvl3-8b", "OpenGVLab/InternVL3-8B-hf", "internvl", 28, 28, 4, 128, 3584, 3328),
        KnownModel("internvl3.5-1b", "OpenGVLab/InternVL3_5-1B-HF", "internvl", 28, 16, 8, 128, 1024, 3328),
        KnownModel("internvl3.5-2b", "OpenGVLab/InternVL3_5-2B-HF", "internvl", 28, 16, 8, 128, 2048, 3328),
        KnownModel("internvl3.5-4b", "OpenGVLab/InternVL3_5-4B-HF", "internvl", 36, 32, 8, 128, 2560, 3328),
        KnownModel("internvl3.5-8b", "OpenGVLab/InternVL3_5-8B-HF", "internvl", 36, 32, 8, 128, 4096, 3328),
        KnownModel(
            "mistral-small-3.1-24b",
            "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
            "mistral3",
            40,
            32,
            8,
            128,
            5120,
            414,
        ),
        KnownModel("pixtral-12b", "mistral-community/pixtral-12b", "llava", 40, 32, 8, 128, 5120, 1200),
        KnownModel("glm-4.1v-9b", "zai-org/GLM-4.1V-9B-Thinking", "glm4v", 40, 32, 2, 128, 4096, 391),
        KnownModel("idefics3-8b", "HuggingFaceM4/Idefics3-8B-Llama3", "idefics3", 32, 32, 8, 128, 4096, 2197),
        KnownModel("smolvlm-256m", "HuggingFaceTB/SmolVLM-256M-Instruct", "idefics3", 30, 9, 3, 64, 576, 832),
        KnownModel("smolvlm-500m", "HuggingFaceTB/SmolVLM-500M-Instruct", "idefics3", 32, 15, 5, 64, 960, 832),
        KnownModel("smolvlm-2b", "HuggingFaceTB/SmolVLM-Instruct", "idefics3", 24, 32, 32, 64, 2048, 1053),
        KnownModel("smolvlm2-256m", "HuggingFaceTB/SmolVLM2-256M-Video-Instruct", "smolvlm", 30, 9, 3, 64, 576, 832),
        KnownModel("smolvlm2-500m", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "smolvlm", 32, 15, 5, 64, 960, 832),
        KnownModel("smolvlm2-2.2b", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm", 24, 32, 32, 64, 2048, 1053),
    )
}
