"""A hand-built LLaVA-1.5 in which three known heads copy from the image and all others see text only; and its samples.

Every weight is set, none is trained. A picture is grey but for one square, whose colour is one of the eight corners of
RGB: three bits. Each planted head finds the square and copies one bit to where the answer is read off; the other heads
attend to text and write where nothing is read. So what every measurement must find is known beforehand: `PLANTED`
alone look at the image, all of their attention is in the box, and taking one away loses its bit, which costs the half
of the answers that guess wrong.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from llava_parts import SPECIAL, llava_processor, word_tokenizer
from PIL import Image
from tiny_models import CHAT_TEMPLATE, save_as_on_the_hub
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from calibrate.datasets import Dataset, Sample
from profiles.head_profile import DatasetRef

PLANTED: Final = {(1, 3): 0, (2, 0): 1, (4, 2): 2}
"""`(layer, head)` of each planted head, and the bit that it copies: one in each third of the layers."""

LAYERS, HEADS, HEAD_SIZE, HIDDEN = 6, 5, 32, 120
SIDE, PATCH = 9, 8

COLOURS: Final = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
"""Colour `i` has red, green and blue where bit 0, 1 and 2 of `i` are set."""

QUESTIONS: Final = {"plain": "What colour is the square ?", "please": "Please tell me , what colour is the square ?"}
"""By family; they differ in length, so that batches are padded."""

_WORDS: Final = (*SPECIAL, "USER", "ASSISTANT", ":", *dict.fromkeys(" ".join(QUESTIONS.values()).split()), *COLOURS)
_IMAGE: Final = _WORDS.index("<image>")

# What the axes of the residual stream mean; the rest is free, and never read for the answer.
_CONSTANT, _TEXT, _SQUARE, _SEEN, _ANSWER, _FREE = 0, 1, 2, slice(3, 6), slice(6, 9), slice(9, HIDDEN)
# Rotary embeddings turn pair i of a head by theta^(-2i / size) a position; at this theta the last of them stand still.
_THETA: Final = 1e12
_STILL: Final = HEAD_SIZE // 2 - 1


def make_planted(path: Path, seed: int = 0) -> Path:
    """Write the model; the seed is that of what the other heads see and write. Returns the folder."""
    tokenizer = word_tokenizer(_WORDS, padding_side="left")
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = llava_processor(tokenizer, SIDE * PATCH, PATCH, CHAT_TEMPLATE, **half)
    model = LlavaForConditionalGeneration(_config(len(_WORDS)))
    with torch.no_grad():
        _set_weights(model, torch.Generator().manual_seed(seed))
    return save_as_on_the_hub(Path(path), model, processor)


def _config(vocabulary: int) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
        projection_dim=64,
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=144,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_SIZE,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": _THETA},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=_IMAGE,
        image_seq_length=SIDE**2,
        architectures=["LlavaForConditionalGeneration"],
    )


def _set_weights(model: LlavaForConditionalGeneration, generator: torch.Generator) -> None:
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    _set_vision(model)
    decoder = model.model.language_model
    _set_embeddings(decoder.embed_tokens.weight, generator)
    for layer, block in enumerate(decoder.layers):
        # MLPs stay zero.
        for head in range(HEADS):
            own = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
            projections = [block.self_attn.get_submodule(f"{kind}_proj").weight for kind in "qkv"]
            q, k, v = (weight[own] for weight in projections)
            bit = PLANTED.get((layer, head))
            _set_head(q, k, v, block.self_attn.o_proj.weight[:, own], bit, generator)
    _set_output(model.lm_head.weight)


def _set_vision(model: LlavaForConditionalGeneration) -> None:
    """A tower that passes the mean colour of a patch on, and a projector that makes signed bits of it."""
    embeddings, projector = model.model.vision_tower.embeddings, model.model.multi_modal_projector
    for colour in range(3):
        embeddings.patch_embedding.weight[colour, colour] = 1 / PATCH**2
        embeddings.patch_embedding.weight[3 + colour, colour] = -1 / PATCH**2  # the tower's norm takes the mean away
        # GELU is the identity far above 0, and 0 far below.
        projector.linear_1.weight[colour, colour] = 10
        projector.linear_1.weight[3 + colour, 3 + colour] = 10
        own = 1 / _after_norm()
        projector.linear_2.weight[_SEEN][colour, colour] = own
        projector.linear_2.weight[_SEEN][colour, 3 + colour] = -own
        projector.linear_2.weight[_SQUARE, [colour, 3 + colour]] = own / 3
    # Without it a grey patch would be all noise behind the norm.
    embeddings.position_embedding.weight[:, 6], embeddings.position_embedding.weight[:, 7] = 1, -1
    projector.linear_2.bias[_CONSTANT] = 12


def _after_norm() -> float:
    """What GELU puts out for a colour fully there: six axes of ±1 and two of the constant, normalised over 64."""
    return 10 * (64 / 8) ** 0.5


def _set_embeddings(weight: Tensor, generator: torch.Generator) -> None:
    weight[:, _FREE] = 0.3 * torch.randn(weight[:, _FREE].shape, generator=generator)
    weight[:, _CONSTANT], weight[:, _TEXT] = 12, 1  # the constant outweighs all else, so that the norms hardly vary


def _set_head(q: Tensor, k: Tensor, v: Tensor, o: Tensor, bit: int | None, generator: torch.Generator) -> None:
    """Set one head: `q`, `k`, `v` are `(head size, hidden)`, `o` is `(hidden, head size)`."""
    q[_STILL, _CONSTANT] = 6
    if bit is not None:
        k[_STILL, _SQUARE] = 1.2
        v[0, _SEEN.start + bit] = 1
        o[_ANSWER.start + bit, 0] = 1
        return
    k[_STILL, _TEXT] = 0.8  # a thousandth of the attention is left to the image, spread evenly
    # Among text tokens each of these heads has a taste of its own, and something to say that nobody hears.
    free = slice(0, _STILL)
    for target in (q[free], k[free], v):
        target[:, _FREE] = 0.1 * torch.randn(target[:, _FREE].shape, generator=generator)
    o[_FREE] = 0.1 * torch.randn(o[_FREE].shape, generator=generator)


def _set_output(weight: Tensor) -> None:
    """Read the bits; of colours that fit equally well, the one that stands first is liked a little more."""
    weight[:, _CONSTANT] = -1
    for index, colour in enumerate(COLOURS):
        row = weight[_WORDS.index(colour)]
        row[_CONSTANT] = -0.01 * index
        for bit in range(3):
            row[_ANSWER.start + bit] = 1.0 if index >> bit & 1 else -1.0


class PlantedWorld(Dataset):
    """Grey pictures with one square, anywhere; the families and the colours in turn.

    Parameters
    ----------
    samples
        How many.
    seed
        Of where the squares are.
    """

    def __init__(self, samples: int, seed: int = 0) -> None:
        super().__init__("planted")
        self._samples, self._seed = samples, seed

    def ref(self) -> DatasetRef:
        return DatasetRef(name=self.name, digest=None, split=None, settings={"seed": self._seed})

    def __len__(self) -> int:
        return self._samples

    def read(self, index: int) -> Sample:
        rng = np.random.default_rng([self._seed, index])
        family = list(QUESTIONS)[index % len(QUESTIONS)]
        colour = index // len(QUESTIONS) % len(COLOURS)
        x, y = (int(rng.integers(SIDE)) * PATCH for _ in range(2))
        pixels = np.full((SIDE * PATCH, SIDE * PATCH, 3), 128, np.uint8)
        pixels[y : y + PATCH, x : x + PATCH] = [255 * (colour >> bit & 1) for bit in range(3)]
        return Sample(
            id=f"planted/{self._seed}/{index}",
            image=Image.fromarray(pixels),
            question=QUESTIONS[family],
            answer=COLOURS[colour],
            family=family,
            options=COLOURS,
            box=(x, y, x + PATCH, y + PATCH),
        )
