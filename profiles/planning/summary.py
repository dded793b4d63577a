"""A plan in numbers: heads by stage and treatment, and what it saves, as one JSON-ready document.

Does not know how it is shown.
"""

from typing import TypedDict

from profiles.geometry import stage_layers
from profiles.names import STAGES, Stage, TreatmentName
from profiles.planning.image_exit import exit_layer, prefill_saved
from profiles.planning.savings import (
    ideal_concurrency,
    image_blocks,
    kv_bytes_baseline,
    kv_bytes_per_image_token,
    kv_bytes_per_token,
    weight_bytes_saved,
)
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS

# A question with its chat template, in the data sets of the paper.
USUAL_TEXT_TOKENS = 70
USUAL_IMAGE_START = USUAL_TEXT_TOKENS // 2
"""Tokens before the image, wherever blocks of the usual prompt are counted."""


class KvBytes(TypedDict):
    """KV cache of one token, in bytes over the whole model."""

    baseline: int
    pruned: int


class Prompt(TypedDict):
    """A prompt with one image."""

    text_tokens: int
    image_tokens: int


class ImageExit(TypedDict):
    """Where tokens of image blocks leave the forward pass, as `profiles.planning.image_exit` says it.

    `layer` is the first, 0-based, of `layers`, that does not compute them; `prefill_saved` the share of the decoder
    layers' work on `Summary.prompt`.
    """

    layer: int
    layers: int
    prefill_saved: float


class Summary(TypedDict):
    """Numbers of a plan for KV blocks of one size.

    `kv_bytes_per_image_token` and `ideal_concurrency` are for `prompt` and count blocks: what of an image shares one
    with text, every head keeps. `heads_together` is how many query heads are treated as one: those of a KV group with
    granularity `kv_group`. `usual_prompt` has the model's usual image. Ideal, because a server may have to pad
    what unlike layers share (`profiles.planning.savings.ideal_concurrency`).
    """

    plan_digest: str
    model: str
    dtype: str
    block_size: int
    heads: dict[Stage, dict[TreatmentName, int]]
    heads_together: int
    kv_bytes_per_token: KvBytes
    kv_bytes_per_image_token: KvBytes
    weight_bytes_saved: int
    usual_prompt: Prompt
    prompt: Prompt
    ideal_concurrency: float
    image_exit: ImageExit | None


def heads_by_stage(plan: PruningPlan) -> dict[Stage, dict[TreatmentName, int]]:
    """Number of query heads of each stage and treatment, zeros included."""
    layers = {stage: stage_layers(stage, plan.geometry.layers) for stage in STAGES}
    return {
        stage: {name: sum(plan.treatments[layer].count(name) for layer in layers[stage]) for name in TREATMENTS}
        for stage in STAGES
    }


def summarise(
    plan: PruningPlan, dtype: str, dtype_bytes: int, block_size: int, image_tokens: int | None = None
) -> Summary:
    """Numbers of a plan served with KV cache and weights of one dtype, in KV blocks of `block_size` tokens.

    Parameters
    ----------
    image_tokens
        Of the image that it is computed for, from the first to the last; None: the model's usual one.

    Raises
    ------
    LayoutRefused
    """
    usual = plan.geometry.image_tokens
    image_tokens = usual if image_tokens is None else image_tokens
    baseline = kv_bytes_baseline(plan.geometry, dtype_bytes)
    return {
        "plan_digest": plan.digest,
        "model": plan.model.name,
        "dtype": dtype,
        "block_size": block_size,
        "heads": heads_by_stage(plan),
        "heads_together": plan.heads_together,
        "kv_bytes_per_token": {
            "baseline": baseline,
            "pruned": kv_bytes_per_token(plan, dtype_bytes),
        },
        "kv_bytes_per_image_token": {
            "baseline": baseline,
            "pruned": kv_bytes_per_image_token(
                plan, dtype_bytes, prompt=(USUAL_IMAGE_START, block_size), image_tokens=image_tokens
            ),
        },
        "weight_bytes_saved": weight_bytes_saved(plan, dtype_bytes),
        "usual_prompt": {"text_tokens": USUAL_TEXT_TOKENS, "image_tokens": usual},
        "prompt": {"text_tokens": USUAL_TEXT_TOKENS, "image_tokens": image_tokens},
        "ideal_concurrency": ideal_concurrency(plan, USUAL_TEXT_TOKENS, image_tokens, block_size, USUAL_IMAGE_START),
        "image_exit": _image_exit(plan, image_tokens, block_size),
    }


def _image_exit(plan: PruningPlan, image_tokens: int, block_size: int) -> ImageExit | None:
    first = exit_layer(plan)
    if first is None:
        return None
    dropped = image_blocks(USUAL_IMAGE_START, image_tokens, block_size) * block_size
    saved = prefill_saved(plan, dropped / (USUAL_TEXT_TOKENS + image_tokens))
    return {"layer": first, "layers": plan.geometry.layers, "prefill_saved": saved}
