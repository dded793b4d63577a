"""Treats heads of a transformers model the way serving does: the oracle that the engine is tested against.

Owns what each treatment means for one full forward pass of a LLaVA model, batched and padded. Independent of the engine
on purpose: it masks and overwrites, where the engine leaves heads out. Does not know which heads are worth treating.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from calibrate.masking.layer_treatments import LayerTreatment, Positions, layers_treated, text_only_output
from calibrate.models.decoder import decoder_layers
from profiles.pruning_plan import PruningPlan

__all__ = ["Ablation", "layer_treatments", "plan_treated", "text_only_output", "treated"]

Ablation = Literal["full", "text_only", "removed", "uniform"]
"""The treatments of a plan, and `uniform`: the head attends uniformly to every position of its sequence, later ones
too, which is what setting its logits to zero after the causal mask does (the paper's own masking)."""


@contextmanager
def treated(
    model: nn.Module,
    treatments: Sequence[Sequence[str]],
    *,
    compensation_means: npt.ArrayLike | None = None,
    block_size: int | None = None,
) -> Iterator[Positions]:
    """Treat heads while the context is open: every full forward pass of `model` computes what a plan would serve.

    Parameters
    ----------
    model
        A LLaVA, LLaVA-NeXT or ViP-LLaVA model of transformers with `sdpa` or `eager` attention; multi-head or
        grouped-query. Called with `input_ids` and without earlier keys and values; padded left, right or not at all.
    treatments
        `[layers][query_heads]`, each one of `Ablation`. All `full` changes nothing, bit for bit.
    compensation_means
        `(removed heads, head_size)`, in (layer, head) order: what a removed head puts out at every position, before
        `o_proj`. Without it a removed head puts out zero.
    block_size
        A text-only head sees no key of an image block, and puts out zero for its queries. Image blocks are runs of
        `block_size` positions, counted from the first that is no padding, that hold image tokens only. `None`: every
        image token is one.

    Yields
    ------
    Positions, for callers of single decoder layers only.

    Raises
    ------
    ValueError
        For treatments or means of the wrong shape, or a treatment or attention implementation that is not known.
    """
    layers = decoder_layers(model)
    by_layer = layer_treatments(model, treatments, compensation_means)
    positions = Positions(model.config.image_token_id, block_size)  # type: ignore[union-attr, arg-type]
    with ExitStack() as stack:
        if any(layer.text_only or layer.uniform for layer in by_layer):
            # The model without its output layer: who wants one position's logits calls that.
            stack.enter_context(_watched(model.model, positions))
        stack.enter_context(layers_treated(list(layers), [[layer] for layer in by_layer], positions))
        yield positions


@contextmanager
def plan_treated(model: nn.Module, plan: PruningPlan, *, block_size: int | None = None) -> Iterator[Positions]:
    """Treat heads as `plan` says, its compensation included; see `treated`."""
    means = plan.compensation.means
    with treated(model, plan.treatments, compensation_means=means, block_size=block_size) as positions:
        yield positions


def layer_treatments(
    model: nn.Module, treatments: Sequence[Sequence[str]], compensation_means: npt.ArrayLike | None = None
) -> list[LayerTreatment]:
    """The same by layer; parameters and errors as for `treated`."""
    first: Any = decoder_layers(model)[0].self_attn
    layers, heads = len(decoder_layers(model)), first.config.num_attention_heads
    if len(treatments) != layers or any(len(row) != heads for row in treatments):
        raise ValueError(f"treatments must be {layers} layers of {heads} heads, one for each head of the model")
    known = set(get_args(Ablation))
    if unknown := {one for row in treatments for one in row} - known:
        raise ValueError(f"unknown treatments {sorted(unknown)}: expected some of {sorted(known)}")
    kinds = ("text_only", "uniform", "removed")
    found = [
        LayerTreatment(**{kind: [head for head, one in enumerate(row) if one == kind] for kind in kinds})  # type: ignore[arg-type]
        for row in treatments
    ]
    if compensation_means is not None:
        array = torch.from_numpy(np.array(compensation_means, dtype=np.float32))
        counts = [len(layer.removed) for layer in found]
        if array.shape != (sum(counts), first.head_dim):
            raise ValueError(f"means have shape {tuple(array.shape)}: expected ({sum(counts)}, {first.head_dim})")
        for layer, means in zip(found, torch.split(array, counts), strict=True):
            layer.means = means
    return found


@contextmanager
def _watched(model: Any, positions: Positions) -> Iterator[None]:
    """Take note, for as long as a forward pass runs, which positions are image blocks and which are no padding."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise ValueError("text-only heads need input_ids: embeddings don't tell which positions are image tokens")
        positions.note(ids, kwargs.get("attention_mask"))

    def after(*_: Any) -> None:
        positions.dropped = positions.valid = None

    hooks = (
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, always_call=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
