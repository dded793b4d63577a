"""One forward pass kept at some layers, to be taken up again from there with other heads treated.

Owns what has to be kept of a pass. What lies below the first treated layer (vision tower, projector, lower layers) is
the same for every treatment, so that many of them cost one pass and their upper layers; `branches` runs these. Knows no
plan.
"""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from calibrate.masking.treatments import decoder_layers
from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import Batch, answer_logits


class Pass:
    """A pass over a batch of prompts, kept at the input of some decoder layers.

    Parameters
    ----------
    keep
        Layers that `logits_from` may be asked for; the memory of one `(batch, n, hidden)` each.

    Attributes
    ----------
    logits
        Of the first answer token of each prompt, `(batch, vocabulary)`, float32, nothing treated.
    kept
        Input of the layers in `keep`, each `(batch, n, hidden)`.
    """

    @torch.inference_mode()
    def __init__(self, loaded: LoadedModel, batch: Batch, keep: Collection[int]) -> None:
        self._model, self._last = loaded.model, batch.last
        self._layers = decoder_layers(loaded.model)
        self.kept: dict[int, Tensor] = {}
        self._options: dict[int, dict[str, Any]] = {}
        self._batch = len(batch)
        with ExitStack() as stack:
            for index, layer in enumerate(self._layers):
                hook = layer.register_forward_pre_hook(self._keeper(index, index in keep), with_kwargs=True)
                stack.callback(hook.remove)
            last_hidden = self._model.model(**batch.inputs, use_cache=False).last_hidden_state
            self.logits: Tensor = answer_logits(self._model, last_hidden, self._last)

    @torch.inference_mode()
    def logits_from(self, layer: int) -> Tensor:
        """Take the pass up again at a kept layer; logits as above, of what is treated now."""
        hidden = self.kept[layer]
        for index in range(layer, len(self._layers)):
            hidden = self.through(index, hidden)
        return self.logits_of(hidden)

    @torch.inference_mode()
    def through(self, layer: int, hidden: Tensor) -> Tensor:
        """Through one layer; of the batch, or of several copies of it one after another.

        What the last layer puts out is right at the position of the answer only.
        """
        copies = len(hidden) // self._batch
        options = self._options[layer]
        if copies > 1:
            options = {name: _repeated(value, self._batch, copies) for name, value in options.items()}
        if layer < len(self._layers) - 1:
            return self._layers[layer](hidden, **options)
        with _at(self._layers[layer], self._last.repeat(copies)):
            return self._layers[layer](hidden, **options)

    @torch.inference_mode()
    def logits_of(self, hidden: Tensor) -> Tensor:
        """Logits as above of what the last layer put out, `(batch, n, hidden)`."""
        last = hidden[torch.arange(len(hidden), device=hidden.device), self._last]
        logits: Tensor = self._model.lm_head(self._model.model.language_model.norm(last))
        return logits.float()

    def _keeper(self, index: int, whole: bool) -> Any:
        def keep(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            self._options[index] = options
            if whole:
                self.kept[index] = args[0]

        return keep


@contextmanager
def _at(layer: Any, last: Tensor) -> Iterator[None]:
    """Let a layer's output projection and MLP, most of its work, run at one position of each sample; zero elsewhere."""
    rows = torch.arange(len(last), device=last.device)
    length = 0

    def only(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal length
        length = args[0].shape[1]
        return (args[0][rows, last][:, None], *args[1:])

    def spread(module: Any, args: Any, output: Tensor) -> Tensor:
        whole = output.new_zeros(len(last), length, output.shape[2])
        whole[rows, last] = output[:, 0]
        return whole

    with ExitStack() as stack:
        for module in (layer.self_attn.o_proj, layer.mlp):
            stack.callback(module.register_forward_pre_hook(only).remove)
            stack.callback(module.register_forward_hook(spread).remove)
        yield


def _repeated(value: Any, batch: int, copies: int) -> Any:
    """An option of a layer, for copies of the batch; what is the same for every sample stays."""
    if isinstance(value, tuple):
        return tuple(_repeated(one, batch, copies) for one in value)
    if isinstance(value, Tensor) and value.ndim > 1 and len(value) == batch > 1:
        return value.repeat(copies, *(1,) * (value.ndim - 1))
    return value
