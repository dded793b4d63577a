"""The module in place of a decoder layer's attention when a plan removes all of its heads.

Owns its constant output and how that is made of the checkpoint's tensors as they are loaded. Does not know attention or
KV caches: it has neither.
"""

from collections.abc import Iterable

import torch
from torch import nn
from vllm.model_executor.layers.linear import RowParallelLinear

from vhserve.engine.weights.mean_compensation import BiasSum, MeanCompensation


class RemovedAttention(nn.Module):
    """Gives every position the same output: the compensation for the removed heads, or zero.

    Parameters
    ----------
    stock_output
        The `o_proj` of the attention that it replaces; its bias, if any, is kept.
    compensation
        None for zero in place of the removed heads.
    """

    constant: torch.Tensor | None

    def __init__(self, stock_output: RowParallelLinear, compensation: MeanCompensation | None) -> None:
        super().__init__()
        self.compensation = compensation
        self.bias_sum = BiasSum()
        constant = None
        if compensation is not None or stock_output.bias is not None:
            constant = torch.zeros(stock_output.output_size, dtype=stock_output.params_dtype)
        # Not persistent: it is computed from the checkpoint, not read from it, and dummy weights leave it zero.
        self.register_buffer("constant", constant, persistent=False)
        self.loaded = constant  # the same tensor: while vLLM reloads weights, one without data has the buffer's place

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """The constant for each row of `hidden_states`, (tokens, hidden size)."""
        # A new tensor at each call: the norm that follows works in place.
        zeros = torch.zeros_like(hidden_states)
        return zeros if self.constant is None else zeros + self.constant

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Compute the constant from the layer's tensors and ignore the others; called by vLLM's weight loader.

        Returns
        -------
        Names of all tensors given, as loaded.
        """
        seen = set()
        for name, weight in weights:
            seen.add(name)
            if self.loaded is None:
                continue
            if name == "o_proj.weight" and self.compensation is not None:
                self.bias_sum.put("compensation", self.compensation.bias(weight), self.loaded)
            elif name == "o_proj.bias":
                self.bias_sum.put("checkpoint", weight, self.loaded)
        return seen
