"""The decoder layers behind the image exit as a module of their own, which vLLM compiles like a model.

Owns their order and how one calls the next. Does not know which rows they compute (`stage`).
"""

import functools
from collections.abc import Sequence

import torch
from torch import nn
from vllm.compilation.decorators import support_torch_compile

States = tuple[torch.Tensor, torch.Tensor]
"""Hidden states and residual, each (rows, hidden size)."""

GivenStates = tuple[torch.Tensor, torch.Tensor | None]
"""The same in front of a layer; in front of a decoder's first there is no residual."""


# A class of its own: vLLM finds what it has compiled by the code of `forward`, of which the decoder has another.
@support_torch_compile(dynamic_arg_dims={"positions": -1, "hidden_states": 0, "residual": 0})
class LateLayers(nn.Module):
    """Layers of a decoder, from one up to the last; compiled, for any number of rows, where the decoder is.

    Parameters
    ----------
    layers
        vLLM's, in their order. They stay the decoder's, and have no place in this module's state.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        # Of vLLM's classes, to which decoder layers no longer belong once a stage has taken their place.
        self.forwards = [functools.partial(type(layer).forward, layer) for layer in layers]

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor, residual: torch.Tensor | None) -> States:
        """Hidden states and residual behind the last layer, each (rows, hidden size).

        Parameters
        ----------
        positions
            (rows,), or (3, rows) for rotary positions of three axes; contiguous.
        hidden_states, residual
            (rows, hidden size), in front of the first layer.
        """
        for forward in self.forwards:
            hidden_states, residual = forward(positions, hidden_states, residual)
        if residual is None:
            raise RuntimeError("decoder layers returned no residual")
        return hidden_states, residual
