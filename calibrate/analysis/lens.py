"""Logit lens: the rank, at every layer, of the token that the model ends up with (paper 4.2 and supplement 7).

What a layer puts out at the last prompt position is read as if it were the last layer's: final norm, then output
embedding (nostalgebraist 2020; Belrose et al. 2023). One layer's logits exist at a time. Knows no dataset.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from calibrate.models.batches import Batch
from calibrate.models.decoder import decoder_layers, logits_of_state
from calibrate.models.loading import LoadedModel


@dataclass(frozen=True)
class Lens:
    """What the layers of one forward pass say.

    Attributes
    ----------
    tokens
        The token that the model ends up with, the likeliest behind the last layer; shape `(batch,)`.
    ranks
        Its rank behind each layer, shape `(batch, layers)`; 1 is the likeliest.
    """

    tokens: Tensor
    ranks: Tensor


@contextmanager
def logit_lens(loaded: LoadedModel) -> Iterator[Callable[[Batch, Callable[[Batch], Any]], tuple[Lens, Any]]]:
    """Watch a model's decoder layers; yields a function that runs a pass over a batch and reads the layers.

    That function takes the batch and whatever runs the model's forward pass on it, such as what
    `calibrate.scoring.attention_rows.attention_rows` yields, and returns the lens beside what that returned.
    """
    layers = decoder_layers(loaded.model)
    states: dict[int, Tensor] = {}
    last: list[Tensor] = []

    def keeper(index: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if last:
                states[index] = hidden[torch.arange(len(hidden), device=hidden.device), last[0]]

        return keep

    @torch.inference_mode()
    def read(batch: Batch, run: Callable[[Batch], Any]) -> tuple[Lens, Any]:
        last.append(batch.last)
        try:
            result = run(batch)
            return ranks_of(loaded, [states[index] for index in range(len(layers))]), result
        finally:
            last.clear()
            states.clear()

    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            stack.callback(layer.register_forward_hook(keeper(index)).remove)
        yield read


@torch.inference_mode()
def ranks_of(loaded: LoadedModel, states: list[Tensor]) -> Lens:
    """Read the states behind each layer, each `(batch, hidden)`."""

    def logits(state: Tensor) -> Tensor:
        return logits_of_state(loaded.model, state)

    tokens = logits(states[-1]).argmax(-1)
    return Lens(tokens, torch.stack([rank_of(logits(state), tokens) for state in states], 1))


def rank_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Rank of a token, `(batch, vocabulary)` and `(batch,)` to `(batch,)`: 1 and how many are likelier."""
    return 1 + (logits > logits.gather(1, tokens[:, None])).sum(1)


def settled(ranks: Tensor) -> Tensor:
    """Layer behind which the token is the likeliest and stays it, `(samples, layers)` to `(samples,)`.

    From 0; the last layer's own rank is 1 by definition, so that there always is one.
    """
    wrong = ranks != 1
    layers = ranks.shape[1]
    behind = torch.arange(1, layers + 1, device=ranks.device) * wrong
    return behind.max(1).values.clamp(max=layers - 1)
