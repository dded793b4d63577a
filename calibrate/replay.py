"""One forward pass kept at some layers, to be taken up again from there with other heads treated.

Owns what has to be kept of a pass. What lies below the first treated layer (vision tower, projector, lower layers) is
the same for every treatment, so that many of them cost one pass and their upper layers. Knows no plan.
"""

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from calibrate.loading import LoadedModel
from calibrate.prompts import Batch, answer_logits
from calibrate.treatments import decoder_layers


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
    """

    @torch.inference_mode()
    def __init__(self, loaded: LoadedModel, batch: Batch, keep: Collection[int]) -> None:
        self._model, self._last = loaded.model, batch.last
        self._layers = decoder_layers(loaded.model)
        self._kept: dict[int, tuple[Tensor, dict[str, Any]]] = {}
        with ExitStack() as stack:
            for index in set(keep):
                hook = self._layers[index].register_forward_pre_hook(self._keeper(index), with_kwargs=True)
                stack.callback(hook.remove)
            self.logits = self._logits(self._model.model(**batch.inputs, use_cache=False).last_hidden_state)

    @torch.inference_mode()
    def logits_from(self, layer: int) -> Tensor:
        """Take the pass up again at a kept layer; logits as above, of what is treated now."""
        hidden, options = self._kept[layer]
        for module in list(self._layers)[layer:]:
            hidden = module(hidden, **options)
        return self._logits(self._model.model.language_model.norm(hidden))

    def _keeper(self, index: int) -> Any:
        def keep(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            self._kept[index] = (args[0], options)

        return keep

    def _logits(self, hidden: Tensor) -> Tensor:
        return answer_logits(self._model, hidden, self._last)
