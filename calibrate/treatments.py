"""Treats heads of a transformers model the way serving does: the oracle that the engine is tested against.

Owns what each treatment means for one full forward pass of a LLaVA model, batched and padded. Independent of the engine
on purpose: it masks and overwrites, where the engine leaves heads out. Does not know which heads are worth treating.
"""

import copy
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from calibrate.image_blocks import image_blocks
from profiles.pruning_plan import PruningPlan

Ablation = Literal["full", "text_only", "removed", "uniform"]
"""The treatments of a plan, and `uniform`: the head attends uniformly to every position of its sequence, later ones
too, which is what setting its logits to zero after the causal mask does (the paper's own masking)."""

_ATTENTION: Final = "vhserve_treated"


@dataclass
class Positions:
    """What text-only and uniform heads have to know of a forward pass; forgotten when it ends.

    Attributes
    ----------
    dropped, valid
        In an image block; no padding. Both `(batch, n)`, bool.
    """

    image_token: int
    block_size: int | None
    dropped: Tensor | None = None
    valid: Tensor | None = None

    def note(self, input_ids: Tensor, valid: Tensor | None = None) -> None:
        """Take note of a batch, both `(batch, n)`.

        A forward pass of the whole model does so itself, by its `attention_mask`; who calls decoder layers on their
        own has to.
        """
        self.valid = torch.ones_like(input_ids, dtype=torch.bool) if valid is None else valid.bool()
        self.dropped = image_blocks(input_ids == self.image_token, self.valid, self.block_size)


@dataclass
class _Layer:
    """Query heads of one layer by treatment, ascending."""

    text_only: list[int] = field(default_factory=list)
    uniform: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a LLaVA, LLaVA-NeXT or ViP-LLaVA model, none of its vision tower."""
    return model.model.language_model.layers  # type: ignore[union-attr, return-value]


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
    first: Any = layers[0].self_attn
    by_layer = _by_layer(treatments, len(layers), first.config.num_attention_heads)
    means = _means(by_layer, compensation_means, first.head_dim)
    positions = Positions(model.config.image_token_id, block_size)  # type: ignore[union-attr, arg-type]
    with ExitStack() as stack:
        if any(layer.text_only or layer.uniform for layer in by_layer):
            # The model without its output layer: who wants one position's logits calls that.
            stack.enter_context(_watched(model.model, positions))
            stack.enter_context(_attending(layers, by_layer, positions))
        for index, layer in enumerate(by_layer):
            if layer.removed:
                stack.enter_context(_overwritten(layers[index].self_attn, layer.removed, means[index]))
        yield positions


@contextmanager
def plan_treated(model: nn.Module, plan: PruningPlan, *, block_size: int | None = None) -> Iterator[Positions]:
    """Treat heads as `plan` says, its compensation included; see `treated`."""
    means = plan.compensation.means
    with treated(model, plan.treatments, compensation_means=means, block_size=block_size) as positions:
        yield positions


def _by_layer(treatments: Sequence[Sequence[str]], layers: int, heads: int) -> list[_Layer]:
    if len(treatments) != layers or any(len(row) != heads for row in treatments):
        raise ValueError(f"treatments must be {layers} layers of {heads} heads, one for each head of the model")
    known = set(get_args(Ablation))
    if unknown := {one for row in treatments for one in row} - known:
        raise ValueError(f"unknown treatments {sorted(unknown)}: expected some of {sorted(known)}")
    return [
        _Layer(**{kind: [h for h, one in enumerate(row) if one == kind] for kind in known - {"full"}})
        for row in treatments
    ]


def _means(by_layer: list[_Layer], means: npt.ArrayLike | None, head_size: int) -> list[Tensor | None]:
    """Split the means of all removed heads into those of each layer, `(removed in layer, head_size)`."""
    if means is None:
        return [None] * len(by_layer)
    array = torch.from_numpy(np.array(means, dtype=np.float32))
    counts = [len(layer.removed) for layer in by_layer]
    if array.shape != (sum(counts), head_size):
        raise ValueError(f"means have shape {tuple(array.shape)}: expected ({sum(counts)}, {head_size})")
    return list(torch.split(array, counts))


@contextmanager
def _overwritten(attention: Any, heads: list[int], means: Tensor | None) -> Iterator[None]:
    """Let heads put out a constant: the input of `o_proj` is where heads still stand apart."""

    def overwrite(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        output = args[0].clone()
        by_head = output.view(*output.shape[:-1], -1, attention.head_dim)
        by_head[..., heads, :] = 0.0 if means is None else means.to(output)
        return (output, *args[1:])

    hook = attention.o_proj.register_forward_pre_hook(overwrite)
    try:
        yield
    finally:
        hook.remove()


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


@contextmanager
def _attending(layers: nn.ModuleList, by_layer: list[_Layer], positions: Positions) -> Iterator[None]:
    """Give the layers that need it an attention of their own; the others, and the vision tower, keep theirs."""

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        if positions.dropped is None or positions.valid is None or key.shape[2] != positions.valid.shape[1]:
            raise ValueError("treated heads need one forward pass of the whole model, without earlier keys and values")
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        layer, group = by_layer[module.layer_idx], module.num_key_value_groups
        if layer.text_only:
            kv = [head // group for head in layer.text_only]
            kept = query[:, layer.text_only], key[:, kv], value[:, kv]
            output[:, :, layer.text_only] = text_only_output(*kept, mask, positions.dropped, options["scaling"])
        if layer.uniform:
            weights = positions.valid / positions.valid.sum(1, keepdim=True)
            mean = torch.einsum("bn,bhnd->bhd", weights.to(value), value)
            output[:, :, layer.uniform] = mean[:, None, [head // group for head in layer.uniform]]
        return output, None

    own = [i for i, layer in enumerate(by_layer) if layer.text_only or layer.uniform]
    modules: list[Any] = [layers[i].self_attn for i in own]
    stock = [module.config for module in modules]
    if unknown := {config._attn_implementation for config in stock} - {"sdpa", "eager"}:
        raise ValueError(f"text-only heads need sdpa or eager attention, not {', '.join(sorted(map(str, unknown)))}")
    functions: MutableMapping[str, Any] = ALL_ATTENTION_FUNCTIONS
    functions[_ATTENTION] = attend
    try:
        # The decoder builds its mask by its own config, so the function gets the mask that stock attention would get.
        for module in modules:
            module.config = copy.copy(module.config)
            module.config._attn_implementation = _ATTENTION
        yield
    finally:
        for module, config in zip(modules, stock, strict=True):
            module.config = config
        del functions[_ATTENTION]


def text_only_output(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropped: Tensor, scaling: float | None
) -> Tensor:
    """What heads put out as text-only heads, before `o_proj`.

    Parameters
    ----------
    query, key, value
        `(batch, heads, n, head size)`, a key and value head for each query head.
    mask
        What their own attention gets, `(batch, 1, n, n)`, boolean or additive; None is causal.
    dropped
        Positions in image blocks, `(batch, n)`, bool.
    scaling
        Factor of the logits.

    Returns
    -------
    `(batch, n, heads, head size)`; zero for dropped queries.
    """
    text = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=_visible(mask, dropped), scale=scaling
    )
    return text.transpose(1, 2).masked_fill(dropped[..., None, None], 0.0)


def _visible(mask: Tensor | None, dropped: Tensor) -> Tensor:
    """Keys that each query of a text-only head sees, `(batch, 1, n, n)`.

    Every query sees itself, dropped or not: a row that sees nothing would be NaN, and dropped rows are zeroed anyway.
    """
    n = dropped.shape[1]
    if mask is None:
        mask = torch.ones(n, n, dtype=torch.bool, device=dropped.device).tril()[None, None]
    elif mask.dtype != torch.bool:
        mask = mask == 0  # additive, as eager attention has it
    return (mask & ~dropped[:, None, None, :]) | torch.eye(n, dtype=torch.bool, device=dropped.device)
