"""A LLaVA checkpoint without weights, for `load_format=dummy`: configuration, tokenizer and image processor, offline.

Owns its geometry (any registered model's, or any other) and a vocabulary of words. Does not know what is measured.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from benchmarks import offline

sys.path.insert(0, str(offline.ROOT / "tests" / "support"))

from llava_parts import SPECIAL, llava_processor, word_tokenizer
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from calibrate.models.known import KNOWN
from profiles.geometry import ModelGeometry, ModelRef
from profiles.names import TreatmentName
from profiles.pruning_plan import PruningPlan

WORDS = tuple(f"word{number}" for number in range(995))
REVISION = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Geometry:
    """Size of a decoder, and how many tokens an image has: LLaVA-1.5's architecture throughout.

    LLaVA-1.6's image is stood in for by one of as many tokens as its usual prompt has, so that all prompts are alike.
    """

    layers: int
    query_heads: int
    kv_heads: int
    head_size: int
    hidden_size: int
    intermediate_size: int
    image_tokens: int = 576
    vision_layers: int = 2
    vision_hidden: int = 128

    @property
    def profile(self) -> ModelGeometry:
        return ModelGeometry(
            layers=self.layers,
            query_heads=self.query_heads,
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            hidden_size=self.hidden_size,
            image_tokens=self.image_tokens,
        )


SCALED_DOWN = Geometry(
    layers=12, query_heads=16, kv_heads=16, head_size=64, hidden_size=1024, intermediate_size=2816, image_tokens=576
)
"""For two CPU cores: 48 KiB of KV cache a token in bfloat16."""


def geometry_of(name: str) -> Geometry:
    """`scaled-down`, or a model that `vhserve models` shows."""
    if name == "scaled-down":
        return SCALED_DOWN
    known = KNOWN[name]
    hidden = known.hidden_size
    # 2.6875 is Llama-2's ratio; Mistral's feed-forward is wider.
    intermediate = 14336 if known.kv_heads < known.query_heads else round(hidden * 2.6875 / 256) * 256
    return Geometry(
        known.layers,
        known.query_heads,
        known.kv_heads,
        known.head_size,
        hidden,
        intermediate,
        # Whole patches of a square, of 48 x 48 at most.
        image_tokens=isqrt(min(known.image_tokens, 2304)) ** 2,
        vision_layers=24,
        vision_hidden=1024,
    )


def write(path: Path, geometry: Geometry, positions: int = 16384) -> Path:
    """Write the folder that vLLM loads; returns it."""
    side = round(geometry.image_tokens**0.5)
    if side * side != geometry.image_tokens:
        raise ValueError(f"{geometry.image_tokens} image tokens are not a square of patches")
    pixels = 14 * side
    tokenizer = word_tokenizer((*SPECIAL, *WORDS), pre_tokenizer=WhitespaceSplit())
    processor = llava_processor(tokenizer, pixels, patch_size=14)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=geometry.vision_hidden,
            intermediate_size=geometry.vision_hidden * 4,
            num_hidden_layers=geometry.vision_layers,
            num_attention_heads=geometry.vision_hidden // 64,
            image_size=pixels,
            patch_size=14,
            projection_dim=64,
        ),
        text_config=LlamaConfig(
            vocab_size=len(SPECIAL) + len(WORDS),
            hidden_size=geometry.hidden_size,
            intermediate_size=geometry.intermediate_size,
            num_hidden_layers=geometry.layers,
            num_attention_heads=geometry.query_heads,
            num_key_value_heads=geometry.kv_heads,
            head_dim=geometry.head_size,
            max_position_embeddings=positions,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
        ),
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=geometry.image_tokens,
        architectures=["LlavaForConditionalGeneration"],
        dtype="bfloat16",
    )
    path.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def plan(
    geometry: Geometry,
    shares: Mapping[TreatmentName, float] | None = None,
    *,
    removed: int = 0,
    exit_layer: int | None = None,
) -> PruningPlan:
    """A plan by whole KV heads, each with its queries.

    Parameters
    ----------
    shares
        Of each layer's KV heads, by treatment; the others are full.
    removed
        Query heads that are removed from the last third of the layers, the same number in each but for the remainder;
        rounded up to whole KV heads.
    exit_layer
        First layer, 0-based, of those whose heads are all text-only, but for removed ones.

    Raises
    ------
    ValueError
        The shares are of more heads than there are.
    """
    group = geometry.query_heads // geometry.kv_heads
    counts = {name: round(geometry.kv_heads * share) for name, share in (shares or {}).items()}
    late = range(geometry.layers - geometry.layers // 3, geometry.layers)
    in_turn = [(layer, head) for head in range(geometry.kv_heads) for layer in late][: -(-removed // group)]
    heads = {"removed": in_turn}
    exit_layer = geometry.layers if exit_layer is None else exit_layer
    first = geometry.kv_heads - sum(counts.values())
    if first < 0:
        raise ValueError(f"{counts} of {geometry.kv_heads} KV heads a layer")
    for name, count in counts.items():
        rest = [(layer, head) for layer in range(exit_layer) for head in range(first, first + count)]
        heads[name] = [one for one in rest if one not in set(in_turn)]
        first += count
    late_heads = [(layer, head) for layer in range(exit_layer, geometry.layers) for head in range(geometry.kv_heads)]
    blind = [one for one in late_heads if one not in set(in_turn)]
    heads["text_only"] = [*heads.get("text_only", []), *blind]
    queries: dict[str, Any] = {name: _queries(own, group) for name, own in heads.items()}
    return PruningPlan.manual(
        ModelRef(name="dummy", revision=REVISION, architecture="LlavaForConditionalGeneration"),
        geometry.profile,
        granularity="kv_group",
        **queries,
    )


def _queries(kv_heads: list[tuple[int, int]], group: int) -> list[tuple[int, int]]:
    """The query heads of KV heads, each as layer and head."""
    return [(layer, kv_head * group + number) for layer, kv_head in kv_heads for number in range(group)]
