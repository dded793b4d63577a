"""What treating a head would do to the answers, to first order: one pass and its gradient for all heads at once.

Owns the formula: with g the gradient of the answer's log-odds with respect to a head's output before `o_proj`, and Δ
what a treatment changes in that output, the effect is |Σ g·Δ| over all positions. For removal, Δ = −output, it is the
importance of Michel et al., "Are Sixteen Heads Really Better than One?" (NeurIPS 2019), but of log-odds for the loss,
because they do not vanish where a model is sure. Does not know datasets, sums or files.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from calibrate.masking.image_blocks import image_blocks
from calibrate.masking.treatments import text_only_output
from calibrate.models.answer_logits import answer_logits, log_odds
from calibrate.models.decoder_attention import decoder_attention
from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import Batch


@dataclass(frozen=True)
class EffectSamples:
    """Effects of treating every head, for every sample.

    Attributes
    ----------
    removed, text_only
        In nats of log-odds of the right answer, each `(layers, batch, query heads)`, float64, at least 0; higher means
        worth more: keep.
    miss_probability
        1 − p of that answer, `(batch,)`, float64.
    """

    removed: Tensor
    text_only: Tensor
    miss_probability: Tensor


@contextmanager
def head_effects(loaded: LoadedModel, block_size: int | None) -> Iterator[Callable[[Batch, Tensor], EffectSamples]]:
    """Tap a model's decoder; yields a function that runs a batch, given its answers' tokens, as `log_odds` takes them.

    Keeps the activations of the decoder for its gradient: several times the memory of a plain pass. The weights get no
    gradient.

    Parameters
    ----------
    block_size
        Of the image blocks that a text-only head does not see; None for single image tokens.
    """
    tap = _Tap(loaded, block_size)
    with decoder_attention(loaded, tap.attend):
        yield tap.run


class _Tap:
    """Collects each layer's output and what it would be of text-only heads, for one batch at a time."""

    def __init__(self, loaded: LoadedModel, block_size: int | None) -> None:
        self._loaded, self._block_size = loaded, block_size
        self._layer = {id(module): layer for layer, module in enumerate(loaded.attentions)}
        self._dropped: Tensor | None = None
        self._outputs: dict[int, Tensor] = {}
        self._text_only: dict[int, Tensor] = {}

    def run(self, batch: Batch, answers: Tensor) -> EffectSamples:
        self._dropped = image_blocks(batch.image, batch.valid, self._block_size)
        model: Any = self._loaded.model
        try:
            with torch.enable_grad(), _from_embeddings(self._loaded.language_model):
                hidden = model.model(**batch.inputs, use_cache=False).last_hidden_state
                logits = answer_logits(model, hidden, batch.predicting)
                outputs = [self._outputs[layer] for layer in range(len(self._layer))]
                odds = log_odds(logits, answers)
                gradients = torch.autograd.grad(odds.sum(), outputs)
            removed, text_only = [], []
            for layer, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
                output, gradient = output.detach().float(), gradient.float()
                removed.append(_inner(gradient, output))
                text_only.append(_inner(gradient, self._text_only[layer].float() - output))
            effects = torch.stack(removed)
            return EffectSamples(effects, torch.stack(text_only), torch.sigmoid(-odds.detach()).to(effects))
        finally:
            self._dropped, self._outputs, self._text_only = None, {}, {}

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """SDPA, as transformers calls it; the tensors are `(batch, heads, n, head size)`."""
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        layer = self._layer.get(id(module))
        if layer is not None and self._dropped is not None:
            self._outputs[layer] = output
            with torch.no_grad():
                group = query.shape[1] // key.shape[1]
                kept = query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
                self._text_only[layer] = text_only_output(*kept, mask, self._dropped, options.get("scaling"))
        return output, None


def _inner(gradient: Tensor, change: Tensor) -> Tensor:
    """|Σ g·Δ| over positions and head size, `(batch, n, heads, head size)` to `(batch, heads)`, float64."""
    product = (gradient * change).sum(3)
    product = product if product.device.type != "mps" else product.cpu()  # Metal has no float64
    return product.double().sum(1).abs()


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
