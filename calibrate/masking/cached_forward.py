"""A forward pass that can be continued from an intermediate layer, with other heads treated.

Owns what has to be stored of the pass. What lies below the first treated layer (vision tower, projector, lower layers)
is the same for every variant, so many variants cost one pass and their upper layers; `prefix_sharing` runs these. Does
not know plans.
"""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from calibrate.models.answer_logits import answer_logits, at_positions
from calibrate.models.batches import Batch
from calibrate.models.decoder import attention_of, decoder_layers, logits_of_state
from calibrate.models.layer_additions import LayerAdditions
from calibrate.models.loading import LoadedModel


class CachedForward:
    """A forward pass over a batch of prompts, with the inputs of some decoder layers stored.

    Parameters
    ----------
    keep
        Layers that `logits_from` may be called with; each costs the memory of `(batch, n, hidden)`.

    Attributes
    ----------
    logits
        At the batch's predicting positions, `(batch, [m,] vocabulary)`, float32, with no head treated.
    inputs
        Input of each layer in `keep`, `(batch, n, hidden)`.
    """

    @torch.inference_mode()
    def __init__(self, loaded: LoadedModel, batch: Batch, keep: Collection[int]) -> None:
        self._model, self._at = loaded.model, batch.predicting
        self._layers = decoder_layers(loaded.model)
        self._between = LayerAdditions(loaded.model)
        self.inputs: dict[int, Tensor] = {}
        self._options: dict[int, dict[str, Any]] = {}
        self._batch = len(batch)
        with ExitStack() as stack:
            for index, layer in enumerate(self._layers):
                hook = layer.register_forward_pre_hook(self._store_hook(index, index in keep), with_kwargs=True)
                stack.callback(hook.remove)
            stack.enter_context(self._between.noted())
            last_hidden = self._model.model(**batch.inputs, use_cache=False).last_hidden_state
            self.logits: Tensor = answer_logits(self._model, last_hidden, self._at)

    @torch.inference_mode()
    def logits_from(self, layer: int) -> Tensor:
        """Continue from a stored layer input, with the heads treated that are treated now; logits as above."""
        hidden = self.inputs[layer]
        for index in range(layer, len(self._layers)):
            hidden = self.run_layer(index, hidden)
        return self.logits_of(hidden)

    @torch.inference_mode()
    def run_layer(self, layer: int, hidden: Tensor) -> Tensor:
        """Input of the next layer, `(copies * batch, n, hidden)`, for one or several copies of the batch in turn.

        The last layer's output is valid at the predicting positions only.
        """
        copies = len(hidden) // self._batch
        options = self._options[layer]
        if copies > 1:
            options = {name: _repeated(value, self._batch, copies) for name, value in options.items()}
        if layer < len(self._layers) - 1:
            return self._between.added(layer, self._layers[layer](hidden, **options))
        with _only_at(self._layers[layer], self._at.view(self._batch, -1).repeat(copies, 1)):
            return self._layers[layer](hidden, **options)

    @torch.inference_mode()
    def logits_of(self, hidden: Tensor) -> Tensor:
        """Logits as above, of the last layer's output, `(batch, n, hidden)`."""
        return logits_of_state(self._model, at_positions(hidden, self._at))

    def _store_hook(self, index: int, with_input: bool) -> Any:
        def store(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            self._options[index] = options
            if with_input:
                self.inputs[index] = args[0]

        return store


@contextmanager
def _only_at(layer: Any, positions: Tensor) -> Iterator[None]:
    """Run a layer's output projection and MLP, most of its work, at `positions`, `(batch, m)`; zero elsewhere."""
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    length = 0

    def select(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal length
        length = args[0].shape[1]
        return (args[0][rows, positions], *args[1:])

    def scatter(module: Any, args: Any, output: Tensor) -> Tensor:
        scattered = output.new_zeros(len(positions), length, output.shape[2])
        scattered[rows, positions] = output
        return scattered

    with ExitStack() as stack:
        for module in (attention_of(layer).o_proj, layer.mlp):
            stack.callback(module.register_forward_pre_hook(select).remove)
            stack.callback(module.register_forward_hook(scatter).remove)
        yield


def _repeated(value: Any, batch: int, copies: int) -> Any:
    """A layer's keyword argument, repeated for copies of the batch; one without a batch dimension stays as it is."""
    if isinstance(value, tuple):
        return tuple(_repeated(one, batch, copies) for one in value)
    if isinstance(value, Tensor) and value.ndim > 1 and len(value) == batch > 1:
        return value.repeat(copies, *(1,) * (value.ndim - 1))
    return value
