"""What a decoder adds to its hidden states between two layers: DeepStack, in Qwen3-VL.

Owns how that is read off a forward pass and done again by a caller of single layers. What else a decoder may do between
its layers is refused. Does not know treatments.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from calibrate.errors import UnsupportedModel
from calibrate.models.decoder import decoder_layers, find_decoder


class LayerAdditions:
    """Of one forward pass.

    DeepStack (Meng et al., 2024) adds features of the vision tower's lower layers to the positions of image tokens
    behind the first decoder layers, as `Qwen3VLTextModel._deepstack_process` does.
    """

    def __init__(self, model: nn.Module) -> None:
        self._decoder, self._layers = find_decoder(model), decoder_layers(model)
        self._places: Tensor | None = None
        self._features: list[Tensor] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the additions of a forward pass.

        Raises
        ------
        UnsupportedModel
            The decoder does something else between its layers.
        """
        outputs: dict[int, Tensor] = {}

        def begin(module: nn.Module, args: Any, options: dict[str, Any]) -> None:
            self._features = list(options.get("deepstack_visual_embeds") or [])
            self._places = options.get("visual_pos_masks") if self._features else None

        def keep(index: int) -> Any:
            def after(module: nn.Module, args: Any, output: Tensor) -> None:
                outputs[index] = output

            return after

        def compare(index: int) -> Any:
            def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                output = outputs.pop(index - 1)
                if index > len(self._features) and args[0] is not output:
                    raise UnsupportedModel(
                        f"the decoder ({type(self._decoder).__name__}) changes hidden states behind layer {index - 1}",
                        expected="layers that pass their output on, or DeepStack",
                        fix="choose another model, see `vhserve models`",
                    )

            return before

        with ExitStack() as stack:
            stack.callback(self._decoder.register_forward_pre_hook(begin, with_kwargs=True).remove)
            for index, layer in enumerate(self._layers):
                stack.callback(layer.register_forward_hook(keep(index)).remove)
                if index:
                    stack.callback(layer.register_forward_pre_hook(compare(index)).remove)
            yield

    def added(self, layer: int, hidden: Tensor) -> Tensor:
        """Next layer's input of a layer's output, `(copies * batch, n, hidden)`; itself where nothing is added."""
        if layer >= len(self._features) or self._places is None:
            return hidden
        places = self._places.to(hidden.device)
        copies = len(hidden) // len(places)
        hidden = hidden.clone()
        hidden[places.repeat(copies, 1)] += self._features[layer].to(hidden).repeat(copies, 1)
        return hidden
