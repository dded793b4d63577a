"""Tiny random LLaVA and ViP-LLaVA checkpoints on disk, in exactly the files and tensor names of the Hub's.

Owns their geometry, vocabulary and weights. Every axis has a size of its own, so that a swapped axis fails, and weights
are large enough that dropping any one head is seen in the logits. Knows nothing of profiles, plans or serving.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import torch
from llava_parts import SPECIAL, image_sizes, llava_processor, word_tokenizer
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    Phi3Config,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from calibrate.datasets.synthetic.vocabulary import WORDS

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() }}: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }} {% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""`<s>USER: <image>\\n<question> ASSISTANT:`; the template writes `<s>`, the tokenizer adds nothing."""

Tower = Literal["clip", "siglip"]

Model = LlavaForConditionalGeneration | LlavaNextForConditionalGeneration | VipLlavaForConditionalGeneration

_STRATEGY: Final = {"clip": "default", "siglip": "full"}
"""Which strategy gives the decoder the tokens of the patches: CLIP has a class token in front of them."""


def make_tiny_llava(
    path: Path, *, image_size: int = 72, patch_size: int = 8, tower: Tower = "clip", strategy: str = "", **geometry: int
) -> Path:
    """Write a LLaVA-1.5 checkpoint with random weights.

    Parameters
    ----------
    path
        Folder to write to; made when missing.
    image_size, patch_size
        Pixels along a side; the image has `(image_size // patch_size) ** 2` tokens, 81 by default.
    tower, strategy
        Kind of the vision tower, and which of its tokens the decoder gets: by default, those of the patches.
    geometry
        See `_text_config`; and `seed`.

    Returns
    -------
    The folder, for `from_pretrained` and for vLLM.
    """
    tokenizer, seed = _tokenizer(), geometry.pop("seed", 0)
    strategy = strategy or _STRATEGY[tower]
    config = LlavaConfig(
        vision_config=_vision_config(image_size, patch_size, tower),
        vision_feature_select_strategy=strategy,
        text_config=_text_config(len(tokenizer), **geometry),
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=(image_size // patch_size) ** 2,
        architectures=["LlavaForConditionalGeneration"],
    )
    processor = llava_processor(tokenizer, image_size, patch_size, CHAT_TEMPLATE)
    processor.vision_feature_select_strategy = strategy
    processor.num_additional_image_tokens = int(tower == "clip")
    return _write(Path(path), LlavaForConditionalGeneration(config), processor, seed)


def make_tiny_llava_next(
    path: Path, *, image_size: int = 40, patch_size: int = 8, tower: Tower = "clip", **geometry: int
) -> Path:
    """Write a LLaVA-1.6 checkpoint with random weights: up to four tiles of `image_size` pixels beside the whole image.

    A square image that is larger than a tile has `5 * n * n + 2 * n` tokens, where `n = image_size // patch_size`: 135
    by default. Parameters and return value are those of `make_tiny_llava`.
    """
    tokenizer, seed = _tokenizer(), geometry.pop("seed", 0)
    one, two, three = image_size, 2 * image_size, 3 * image_size
    pinpoints = [[one, two], [two, one], [two, two], [three, one], [one, three]]
    config = LlavaNextConfig(
        vision_config=_vision_config(image_size, patch_size, tower),
        vision_feature_select_strategy=_STRATEGY[tower],
        text_config=_text_config(len(tokenizer), **geometry),
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=(image_size // patch_size) ** 2,
        image_grid_pinpoints=pinpoints,
        architectures=["LlavaNextForConditionalGeneration"],
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(**image_sizes(image_size), image_grid_pinpoints=pinpoints),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy=_STRATEGY[tower],
        num_additional_image_tokens=int(tower == "clip"),
        chat_template=CHAT_TEMPLATE,
    )
    return _write(Path(path), LlavaNextForConditionalGeneration(config), processor, seed)


def make_tiny_vip_llava(
    path: Path,
    *,
    image_size: int = 72,
    patch_size: int = 8,
    feature_layers: Sequence[int] = (-2, -4, 1),
    decoder: Literal["llama", "phi3"] = "llama",
    **geometry: int,
) -> Path:
    """Write a ViP-LLaVA checkpoint with random weights, whose vision tower has 5 layers.

    Parameters
    ----------
    feature_layers
        Layers of the vision tower whose outputs the projector gets, in this order.
    decoder
        Phi-3's tensors of queries, keys and values are one, and those of gate and up.

    Other parameters and the return value are those of `make_tiny_llava`.
    """
    tokenizer, seed = _tokenizer(), geometry.pop("seed", 0)
    text = _text_config(len(tokenizer), **geometry)
    config = VipLlavaConfig(
        vision_config=_vision_config(image_size, patch_size, "clip", layers=5),
        vision_feature_layers=list(feature_layers),
        text_config=_as_phi3(text) if decoder == "phi3" else text,
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=(image_size // patch_size) ** 2,
        architectures=["VipLlavaForConditionalGeneration"],
    )
    processor = llava_processor(tokenizer, image_size, patch_size, CHAT_TEMPLATE)
    return _write(Path(path), VipLlavaForConditionalGeneration(config), processor, seed)


def _as_phi3(text: LlamaConfig) -> Phi3Config:
    """The same geometry as a Phi-3, whose head size is what its width gives each head."""
    sizes = ("vocab_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
    fields = {name: getattr(text, name) for name in (*sizes, *tokens)}
    return Phi3Config(
        hidden_size=text.num_attention_heads * text.head_dim,
        original_max_position_embeddings=text.max_position_embeddings,
        **fields,
    )


def _text_config(
    vocabulary: int,
    *,
    layers: int = 6,
    query_heads: int = 5,
    kv_heads: int = 0,
    head_size: int = 32,
    hidden: int = 120,
    intermediate: int = 176,
    positions: int = 2048,
) -> LlamaConfig:
    """Geometry of the decoder; `kv_heads=0` means as many as query heads.

    `hidden` is a multiple of `query_heads`, though transformers does nothing with the quotient. vLLM on CPU wants
    `head_size` to be 32 at least.
    """
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=query_heads,
        num_key_value_heads=kv_heads or query_heads,
        head_dim=head_size,
        max_position_embeddings=positions,
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
        pad_token_id=SPECIAL.index("<pad>"),
    )


def _vision_config(
    image_size: int, patch_size: int, tower: Tower, layers: int = 3
) -> CLIPVisionConfig | SiglipVisionConfig:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    return CLIPVisionConfig(**sizes, projection_dim=64) if tower == "clip" else SiglipVisionConfig(**sizes)


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark; knows every word of the synthetic world."""
    words = (*SPECIAL, "USER", "ASSISTANT", "SYSTEM", *WORDS)
    return word_tokenizer(words, padding_side="left", model_max_length=2048)


@torch.no_grad()
def _write(
    path: Path,
    model: Model,
    processor: LlavaProcessor | LlavaNextProcessor,
    seed: int,
) -> Path:
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        fill(name, weight, generator)
    return save_as_on_the_hub(path, model, processor)


def save_as_on_the_hub(
    path: Path,
    model: Model,
    processor: LlavaProcessor | LlavaNextProcessor,
) -> Path:
    """Write a model in float32, in the files and under the tensor names of the Hub's checkpoints."""
    path.mkdir(parents=True, exist_ok=True)
    weights = {_hub_name(name): weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = torch.float32
    model.config.save_pretrained(path)
    model.generation_config.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def fill(name: str, weight: torch.Tensor, generator: torch.Generator) -> None:
    """Width-scaled normal weights; queries are twice as large, so that attention is not flat and heads differ."""
    if re.search(r"norm|\bln_", name) and name.endswith("weight"):
        weight.copy_(1 + 0.1 * torch.randn(weight.shape, generator=generator))
        return
    if weight.ndim == 1:
        scale = 1.0 if name.endswith(("image_newline", "class_embedding")) else 0.1
    elif "embed" in name and "patch" not in name:
        scale = 1.0
    elif ".experts." in name:  # (experts, outputs, inputs)
        scale = weight.shape[-1] ** -0.5
    else:
        scale = weight[0].numel() ** -0.5 * (2.0 if "q_proj" in name else 1.0)
    weight.copy_(scale * torch.randn(weight.shape, generator=generator))


def _hub_name(name: str) -> str:
    """Name of a tensor in the Hub's LLaVA checkpoints: neither what transformers 5 calls it nor what it saves it as."""
    for ours, hub in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("model.image_newline", "image_newline"),
    ):
        if name.startswith(ours):
            return hub + name.removeprefix(ours)
    raise ValueError(f"no name on the Hub is known for the tensor {name}")
