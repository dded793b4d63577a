"""What a treatment does inside one decoder layer, and to which part of its batch.

Owns the hooks: heads that put out a constant, attend uniformly or to text only. Several parts of a batch may be treated
differently in one pass. Does not know plans, or models as a whole.
"""

import copy
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from calibrate.masking.image_blocks import image_blocks

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


@dataclass(eq=False)
class LayerTreatment:
    """Query heads of one layer by treatment, ascending; and what removed ones put out, `(removed, head_size)`."""

    text_only: list[int] = field(default_factory=list)
    uniform: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    means: Tensor | None = None


@contextmanager
def layers_treated(
    layers: Sequence[nn.Module], blocks: Sequence[Sequence[LayerTreatment]], positions: Positions
) -> Iterator[None]:
    """Treat heads of decoder layers while the context is open.

    Parameters
    ----------
    blocks
        For every layer, treatments of as many equal parts of the batch, in order: samples that are treated
        differently can so go through a layer together. One treatment is that of the whole batch.
    positions
        Of one part, which all have the same prompts.
    """
    with ExitStack() as stack:
        if any(one.text_only or one.uniform for parts in blocks for one in parts):
            stack.enter_context(_attending(layers, blocks, positions))
        for layer, parts in zip(layers, blocks, strict=True):
            if any(one.removed for one in parts):
                stack.enter_context(_overwritten(layer.self_attn, parts))
        yield


def _parts(blocks: Sequence[LayerTreatment], batch: int) -> Iterator[tuple[slice, LayerTreatment]]:
    size = batch // len(blocks)
    return ((slice(number * size, (number + 1) * size), one) for number, one in enumerate(blocks))


@contextmanager
def _overwritten(attention: Any, blocks: Sequence[LayerTreatment]) -> Iterator[None]:
    """Let heads put out a constant: the input of `o_proj` is where heads still stand apart."""

    def overwrite(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        output = args[0].clone()
        by_head = output.view(*output.shape[:-1], -1, attention.head_dim)
        for rows, one in _parts(blocks, len(output)):
            if one.removed:
                by_head[rows][..., one.removed, :] = 0.0 if one.means is None else one.means.to(output)
        return (output, *args[1:])

    hook = attention.o_proj.register_forward_pre_hook(overwrite)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _attending(
    layers: Sequence[nn.Module], blocks: Sequence[Sequence[LayerTreatment]], positions: Positions
) -> Iterator[None]:
    """Give the layers that need it an attention of their own; the others, and the vision tower, keep theirs."""

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        if positions.dropped is None or positions.valid is None or key.shape[2] != positions.valid.shape[1]:
            raise ValueError("treated heads need one forward pass of the whole model, without earlier keys and values")
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        group = module.num_key_value_groups
        for rows, one in _parts(by_module[id(module)], len(query)):
            if one.text_only:
                kv = [head // group for head in one.text_only]
                kept = query[rows, one.text_only], key[rows, kv], value[rows, kv]
                seen = mask if mask is None or len(mask) == 1 else mask[rows]
                output[rows, :, one.text_only] = text_only_output(*kept, seen, positions.dropped, options["scaling"])
            if one.uniform:
                weights = positions.valid / positions.valid.sum(1, keepdim=True)
                mean = torch.einsum("bn,bhnd->bhd", weights.to(value), value[rows])
                output[rows, :, one.uniform] = mean[:, None, [head // group for head in one.uniform]]
        return output, None

    by_module: dict[int, Sequence[LayerTreatment]] = {
        id(layer.self_attn): parts
        for layer, parts in zip(layers, blocks, strict=True)
        if any(one.text_only or one.uniform for one in parts)
    }
    modules: list[Any] = [layer.self_attn for layer in layers if id(layer.self_attn) in by_module]
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
