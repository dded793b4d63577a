"""Treats heads of a transformers model the way serving does: the oracle that the engine is tested against.

Owns what a table of treatments means for one full forward pass of a vision-language model, batched and padded.
Independent of the engine on purpose: it masks and overwrites, where the engine leaves heads out. Does not know which
heads are worth treating.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from calibrate.masking.ablations import ABLATIONS
from calibrate.masking.layer_treatments import LayerTreatment, layers_treated
from calibrate.masking.masks import text_only_output
from calibrate.masking.positions import Positions
from calibrate.models.decoder import attention_of, decoder_layers
from calibrate.models.image_spans import Media, span_mask
from profiles.image_spans import RULE, SpanRule
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS

__all__ = ["layer_treatments", "plan_treated", "text_only_output", "treated"]


@contextmanager
def treated(
    model: nn.Module,
    treatments: Sequence[Sequence[str]],
    *,
    compensation_means: npt.ArrayLike | None = None,
    block_size: int | None = None,
    prompt_lengths: Sequence[int] | None = None,
    media: Sequence[Media] | None = None,
    rule: SpanRule = RULE,
) -> Iterator[Positions]:
    """Treat heads while the context is open: every full forward pass of `model` computes what a plan would serve.

    Parameters
    ----------
    model
        A model of transformers that passes `calibrate.models.criterion`, with `sdpa` or `eager` attention; multi-head
        or grouped-query. Called with `input_ids` and without earlier keys and values; padded left, right or not at all.
    treatments
        `[layers][query_heads]`, each a name of `profiles.treatments` or `calibrate.masking.ablations`. All `full`
        changes nothing, bit for bit.
    compensation_means
        `(removed heads, head_size)`, in (layer, head) order: what a removed head puts out at every position, before
        `o_proj`. Without it a removed head puts out zero.
    block_size
        Image blocks are runs of `block_size` positions, counted from the first that is no padding, inside one image
        span. `None`: every position of a span is one. A head attends to those that its treatment sees, and puts out
        zero for queries inside others.
    prompt_lengths
        Tokens of each sample's prompt; positions behind it are its reply's. `None`: all are the prompt's.
    media
        What each sample has in its prompt. `None`: one image at most.
    rule
        What an image span is.

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
    positions = Positions(block_size, prompt_lengths)

    config: Any = model.config
    # Of some models a video's embeddings stand in the place of image tokens, too.
    tokens = [config.image_token_id, getattr(config, "video_token_id", None)]
    embedded = torch.tensor([token for token in tokens if token is not None])

    def spans(ids: Tensor) -> Tensor:
        return span_mask(torch.isin(ids, embedded.to(ids.device)), media, rule)

    with ExitStack() as stack:
        if any(layer.changes_attention for layer in by_layer):
            # The model without its output layer: who wants one position's logits calls that.
            stack.enter_context(_watched(model.model, positions, spans))
        stack.enter_context(layers_treated(list(layers), [[layer] for layer in by_layer], positions))
        yield positions


@contextmanager
def plan_treated(
    model: nn.Module,
    plan: PruningPlan,
    *,
    block_size: int | None = None,
    prompt_lengths: Sequence[int] | None = None,
    media: Sequence[Media] | None = None,
) -> Iterator[Positions]:
    """Treat heads as `plan` says, its compensation and rule of image spans included; see `treated`."""
    means = plan.compensation.means
    with treated(
        model,
        plan.treatments,
        compensation_means=means,
        block_size=block_size,
        prompt_lengths=prompt_lengths,
        media=media,
        rule=plan.span_rule,
    ) as positions:
        yield positions


def layer_treatments(
    model: nn.Module, treatments: Sequence[Sequence[str]], compensation_means: npt.ArrayLike | None = None
) -> list[LayerTreatment]:
    """The same by layer; parameters and errors as for `treated`."""
    first = attention_of(decoder_layers(model)[0])
    layers, heads = len(decoder_layers(model)), first.config.num_attention_heads
    if len(treatments) != layers or any(len(row) != heads for row in treatments):
        raise ValueError(f"treatments must be {layers} layers of {heads} heads, one for each head of the model")
    known = {*TREATMENTS, *ABLATIONS}
    if unknown := {one for row in treatments for one in row} - known:
        raise ValueError(f"unknown treatments {sorted(unknown)}: expected some of {sorted(known)}")
    found = [_layer_treatment(row) for row in treatments]
    if compensation_means is not None:
        array = torch.from_numpy(np.array(compensation_means, dtype=np.float32))
        counts = [len(layer.constant) for layer in found]
        if array.shape != (sum(counts), first.head_dim):
            raise ValueError(f"means have shape {tuple(array.shape)}: expected ({sum(counts)}, {first.head_dim})")
        for layer, means in zip(found, torch.split(array, counts), strict=True):
            layer.means = means
    return found


def _layer_treatment(row: Sequence[str]) -> LayerTreatment:
    by_name = {name: [head for head, one in enumerate(row) if one == name] for name in dict.fromkeys(row)}
    return LayerTreatment(
        masked={name: by_name[name] for name, one in TREATMENTS.items() if name in by_name and one.is_masked},
        ablated={name: by_name[name] for name in ABLATIONS if name in by_name},
        constant=[head for head, name in enumerate(row) if name in TREATMENTS and not TREATMENTS[name].computed],
    )


@contextmanager
def _watched(model: Any, positions: Positions, spans: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Note the positions of each forward pass of a model, and clear them when it ends."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise ValueError("masked heads need input_ids: embeddings don't tell which positions are image tokens")
        positions.note(spans(ids), kwargs.get("attention_mask"))

    def after(*_: Any) -> None:
        positions.clear()

    hooks = (
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, always_call=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
