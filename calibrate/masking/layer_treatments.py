"""What treatments do inside one decoder layer, and to which part of its batch.

Owns the hooks: heads that put out a constant, attend under a mask, or get the output of an ablation. Several parts of a
batch may be treated differently in one pass. Does not know plans, or models as a whole.
"""

import copy
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from calibrate.masking.ablations import ABLATIONS
from calibrate.masking.masks import hidden_keys, masked_output
from calibrate.masking.positions import Positions
from calibrate.models.decoder import attention_of
from profiles.treatments import TREATMENTS

_ATTENTION: Final = "vhserve_treated"


@dataclass(eq=False)
class LayerTreatment:
    """Query heads of one layer by what is done to them, each list ascending and not empty.

    Attributes
    ----------
    masked
        By name of a treatment in `profiles.treatments`: heads that see less than everything.
    ablated
        By name of one of `calibrate.masking.ablations`.
    constant
        Heads that put out a constant.
    means
        What these put out, `(constant, head_size)`; `None` for zero.
    """

    masked: dict[str, list[int]] = field(default_factory=dict)
    ablated: dict[str, list[int]] = field(default_factory=dict)
    constant: list[int] = field(default_factory=list)
    means: Tensor | None = None

    @property
    def changes_attention(self) -> bool:
        """Whether a head attends in another way than its own."""
        return bool(self.masked or self.ablated)


@contextmanager
def layers_treated(
    layers: Sequence[nn.Module], blocks: Sequence[Sequence[LayerTreatment]], positions: Positions
) -> Iterator[None]:
    """Treat heads of decoder layers while the context is open.

    Parameters
    ----------
    blocks
        For every layer, the treatments of equal parts of the batch, in order, so that samples that are treated
        differently can go through a layer together. A single one is that of the whole batch.
    positions
        Of one part, which all have the same prompts.
    """
    with ExitStack() as stack:
        if any(one.changes_attention for parts in blocks for one in parts):
            stack.enter_context(_attending(layers, blocks, positions))
        for layer, parts in zip(layers, blocks, strict=True):
            if any(one.constant for one in parts):
                stack.enter_context(_overwritten(attention_of(layer), parts))
        yield


def _parts(blocks: Sequence[LayerTreatment], batch: int) -> Iterator[tuple[slice, LayerTreatment]]:
    size = batch // len(blocks)
    return ((slice(number * size, (number + 1) * size), one) for number, one in enumerate(blocks))


@contextmanager
def _overwritten(attention: Any, blocks: Sequence[LayerTreatment]) -> Iterator[None]:
    """Replace the output of heads by a constant, in the input of `o_proj`, where heads are still separate."""

    def overwrite(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        output = args[0].clone()
        by_head = output.view(*output.shape[:-1], -1, attention.head_dim)
        for rows, one in _parts(blocks, len(output)):
            if one.constant:
                by_head[rows][..., one.constant, :] = 0.0 if one.means is None else one.means.to(output)
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
    """Give the layers that need it another attention function; the others, and the vision tower, keep theirs."""

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        if positions.valid is None or key.shape[2] != positions.valid.shape[1]:
            raise ValueError("treated heads need one forward pass of the whole model, without earlier keys and values")
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        group = module.num_key_value_groups
        for rows, one in _parts(by_module[id(module)], len(query)):
            seen = mask if mask is None or len(mask) == 1 else mask[rows]
            for name, heads in one.masked.items():
                kv = [head // group for head in heads]
                kept = query[rows, heads], key[rows, kv], value[rows, kv]
                masking = hidden_keys(TREATMENTS[name], positions)
                output[rows, :, heads] = masked_output(*kept, seen, *masking, options["scaling"])
            for name, heads in one.ablated.items():
                replaced = ABLATIONS[name](value[rows], positions)
                output[rows, :, heads] = replaced[:, None, [head // group for head in heads]]
        return output, None

    by_module: dict[int, Sequence[LayerTreatment]] = {
        id(attention_of(layer)): parts
        for layer, parts in zip(layers, blocks, strict=True)
        if any(one.changes_attention for one in parts)
    }
    modules: list[Any] = [one for one in map(attention_of, layers) if id(one) in by_module]
    stock = [module.config for module in modules]
    if unknown := {config._attn_implementation for config in stock} - {"sdpa", "eager"}:
        raise ValueError(f"masked heads need sdpa or eager attention, not {', '.join(sorted(map(str, unknown)))}")
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
