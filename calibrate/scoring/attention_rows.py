"""The fast path: one attention row per head, computed beside SDPA, and the mean output of every head.

Owns an attention function for the decoder (`decoder_attention` puts it there). No n x n matrix is ever built. Does not
know image tokens, scores or datasets.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from calibrate.models.batches import Batch
from calibrate.models.decoder_attention import decoder_attention
from calibrate.models.loading import LoadedModel


@dataclass(frozen=True)
class AttentionRows:
    """What one forward pass showed.

    Attributes
    ----------
    rows
        For each layer the attention of the last prompt position, shape `(batch, query heads, n)`, float32; each row
        sums to 1, and is 0 on padding.
    output_sum
        Sum over samples and positions (padding left out) of each head's output before `o_proj`, shape
        `(layers, query heads, head size)`, float64.
    positions
        How many positions were summed.
    """

    rows: list[Tensor]
    output_sum: Tensor
    positions: int


@contextmanager
def attention_rows(loaded: LoadedModel) -> Iterator[Callable[[Batch], AttentionRows]]:
    """Tap a model's decoder; yields a function that runs a batch and returns its rows."""
    tap = _Tap(loaded)
    with decoder_attention(loaded, tap.attend):
        yield tap.run


class _Tap:
    """Collects rows and output sums of one batch at a time."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._layer = {id(module): layer for layer, module in enumerate(loaded.attentions)}
        self._batch: Batch | None = None
        self._rows: dict[int, Tensor] = {}
        self._sums: dict[int, Tensor] = {}

    @torch.inference_mode()
    def run(self, batch: Batch) -> AttentionRows:
        self._batch = batch
        try:
            # The output embedding is not needed: nothing is predicted here.
            self._loaded.model.model(**batch.inputs, use_cache=False)
            layers = range(len(self._layer))
            sums = torch.stack([self._sums[layer] for layer in layers])
            return AttentionRows([self._rows[layer] for layer in layers], sums, int(batch.valid.sum()))
        finally:
            self._batch, self._rows, self._sums = None, {}, {}

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """SDPA, as transformers calls it; the tensors are `(batch, heads, n, head size)`."""
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
        layer = self._layer.get(id(module))
        if layer is not None and self._batch is not None:
            batch = self._batch
            self._rows[layer] = last_row(query, key, batch.last, batch.valid, attention_mask, scaling)
            self._sums[layer] = _sum_positions(output, batch.valid)
        return output, None


def last_row(
    query: Tensor,
    key: Tensor,
    last: Tensor,
    valid: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
) -> Tensor:
    """Attention row of each sample's last prompt position.

    Parameters
    ----------
    query, key
        Shape `(batch, query heads, n, head size)` and `(batch, KV heads, n, head size)`.
    last
        Position of each sample, shape `(batch,)`.
    valid
        Which positions are no padding, shape `(batch, n)`. Valid positions after `last` would be counted, so there
        must be none.
    attention_mask
        Mask that SDPA got, shape `(batch or 1, 1, n, n)`, boolean or added to the logits; carries sliding windows.
    scaling
        Factor of the logits, 1 / sqrt(head size) by default.

    Returns
    -------
    Shape `(batch, query heads, n)`, float32.
    """
    (batch, heads, n, size), kv_heads = query.shape, key.shape[1]
    every = torch.arange(batch, device=query.device)
    # Float32 whatever the model's type: bfloat16 logits are off by up to 1 in 256.
    asked = query[every, :, last].float() * (size**-0.5 if scaling is None else scaling)
    logits = _products(asked.view(batch, kv_heads, heads // kv_heads, size), key.float())
    hidden = ~valid
    if attention_mask is not None:
        row = attention_mask.expand(batch, -1, -1, -1)[every, 0, last][:, :n]
        if row.dtype == torch.bool:
            hidden = hidden | ~row
        else:
            logits = logits + row[:, None, None].float()
    logits = logits.masked_fill(hidden[:, None, None], -torch.inf)
    return logits.softmax(-1).reshape(batch, heads, n)


def _products(asked: Tensor, key: Tensor) -> Tensor:
    """Products of `(batch, KV heads, group, head size)` with all keys, `(batch, KV heads, group, n)`.

    Keys lie in memory position by position, all heads together. A product for each head would first copy them; one
    product of whole positions with a block-diagonal matrix, mostly zeros, takes half the time.
    """
    batch, kv_heads, group, size = asked.shape
    heads = torch.arange(kv_heads, device=key.device)
    blocks = asked.new_zeros(batch, kv_heads, size, kv_heads, group)
    blocks[:, heads, :, heads] = asked.permute(1, 0, 3, 2)
    positions = key.transpose(1, 2).flatten(2)
    products = positions @ blocks.view(batch, kv_heads * size, kv_heads * group)
    return products.view(batch, -1, kv_heads, group).permute(0, 2, 3, 1)


def _sum_positions(output: Tensor, valid: Tensor) -> Tensor:
    """Sum of `(batch, n, heads, head size)` over valid positions, `(heads, head size)`, float64."""
    per_sample = valid.float()[:, None] @ output.float().flatten(2)
    # Metal has no float64.
    per_sample = per_sample if per_sample.device.type != "mps" else per_sample.cpu()
    return per_sample.double().sum((0, 1)).view(output.shape[2:])
