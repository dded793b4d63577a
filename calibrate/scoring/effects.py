"""What treating a head would do to the answers, to first order: one pass and its gradient for all heads at once.

Owns the formula: with g the gradient of the answer's log-odds with respect to a head's output before `o_proj`, and Δ
what a treatment changes in that output, the effect is |Σ g·Δ| over all positions; of a KV group, whose query heads are
treated together, over all of these too, so that changes which cancel do. For removal, Δ = −output, it is the importance
of Michel et al., "Are Sixteen Heads Really Better than One?" (NeurIPS 2019), but of log-odds for the loss, because they
do not vanish where a model is sure. Does not know datasets, sums or files.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from calibrate.masking.masks import hidden_keys, masked_output
from calibrate.masking.positions import Positions
from calibrate.models.answer_logits import answer_logits, log_odds
from calibrate.models.batches import Batch
from calibrate.models.decoder_attention import decoder_attention
from calibrate.models.loading import LoadedModel
from profiles.treatments import EVICT, REMOVED, TEXT_ONLY

MASKED: Final = (TEXT_ONLY, EVICT)
EFFECTS: Final = (REMOVED.name, *(one.name for one in MASKED))
"""Treatments whose effects are measured; those that leave a head a part of the image are ranked by them too."""


@dataclass(frozen=True)
class EffectSamples:
    """Effects of treating every head, and every KV group, for every sample.

    Attributes
    ----------
    by_treatment
        For each of `EFFECTS`, in nats of log-odds of the right answer, `(layers, batch, query heads)`, float64, at
        least 0; higher means worth more: keep.
    of_groups
        The same of treating all query heads of a KV head at once, `(layers, batch, KV heads)`.
    miss_probability
        1 − p of that answer, `(batch,)`, float64.
    """

    by_treatment: dict[str, Tensor]
    of_groups: dict[str, Tensor]
    miss_probability: Tensor


@contextmanager
def head_effects(loaded: LoadedModel, block_size: int | None) -> Iterator[Callable[[Batch, Tensor], EffectSamples]]:
    """Tap a model's decoder; yields a function that runs a batch, given its answers' tokens, as `log_odds` takes them.

    Keeps the activations of the decoder for its gradient: several times the memory of a plain pass. The weights get no
    gradient.

    Parameters
    ----------
    block_size
        Of the image blocks that a head does not see; None for single image tokens.
    """
    tap = _Tap(loaded, block_size)
    with decoder_attention(loaded, tap.attend):
        yield tap.run


class _Tap:
    """Collects each layer's output and what it would be of masked heads, for one batch at a time."""

    def __init__(self, loaded: LoadedModel, block_size: int | None) -> None:
        self._loaded, self._block_size = loaded, block_size
        self._layer = {id(module): layer for layer, module in enumerate(loaded.attentions)}
        self._positions: Positions | None = None
        self._outputs: dict[int, Tensor] = {}
        self._masked: dict[tuple[str, int], Tensor] = {}

    def run(self, batch: Batch, answers: Tensor) -> EffectSamples:
        lengths = None if batch.expected is None else batch.expected.prompt_lengths
        self._positions = Positions(self._block_size, lengths)
        self._positions.note(batch.spans, batch.valid)
        model: Any = self._loaded.model
        try:
            with torch.enable_grad(), _from_embeddings(self._loaded.language_model):
                hidden = model.model(**batch.inputs, use_cache=False).last_hidden_state
                logits = answer_logits(model, hidden, batch.predicting)
                outputs = [self._outputs[layer] for layer in range(len(self._layer))]
                odds = log_odds(logits, answers)
                gradients = torch.autograd.grad(odds.sum(), outputs)
            found: dict[str, list[Tensor]] = {name: [] for name in EFFECTS}
            for layer, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
                output, gradient = output.detach().float(), gradient.float()
                found[REMOVED.name].append(_inner(gradient, -output))
                for one in MASKED:
                    treated = self._masked.get((one.name, layer), output)
                    found[one.name].append(_inner(gradient, treated.float() - output))
            changes = {name: torch.stack(layers) for name, layers in found.items()}
            groups = (self._loaded.geometry.kv_heads, self._loaded.geometry.group_size)
            return EffectSamples(
                {name: change.abs() for name, change in changes.items()},
                {name: change.reshape(*change.shape[:2], *groups).sum(3).abs() for name, change in changes.items()},
                torch.sigmoid(-odds.detach()).to(changes[REMOVED.name]),
            )
        finally:
            self._positions, self._outputs, self._masked = None, {}, {}

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """SDPA, as transformers calls it; the tensors are `(batch, heads, n, head size)`."""
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        layer, positions = self._layer.get(id(module)), self._positions
        if layer is not None and positions is not None:
            self._outputs[layer] = output
            with torch.no_grad():
                group = query.shape[1] // key.shape[1]
                kept = query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
                for one in MASKED:
                    if one.changes_prompt or positions.has_replies:
                        masking = hidden_keys(one, positions)
                        self._masked[one.name, layer] = masked_output(*kept, mask, *masking, options.get("scaling"))
        return output, None


def _inner(gradient: Tensor, change: Tensor) -> Tensor:
    """Σ g·Δ over positions and head size, `(batch, n, heads, head size)` to `(batch, heads)`, float64."""
    product = (gradient * change).sum(3)
    product = product if product.device.type != "mps" else product.cpu()  # Metal has no float64
    return product.double().sum(1)


@contextmanager
def _from_embeddings(decoder: nn.Module) -> Iterator[None]:
    """Let gradients begin at the decoder's input, so that nothing is kept of what lies below."""

    def begin(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, options | {"inputs_embeds": options["inputs_embeds"].detach().requires_grad_(True)}

    hook = decoder.register_forward_pre_hook(begin, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
