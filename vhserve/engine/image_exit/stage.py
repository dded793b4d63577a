"""The layers behind the image exit, as one stage that computes the rows that are kept.

The first of them runs them all on these rows, and puts what comes out among zeros; those that follow it in the
decoder's loop pass that on. So the decoder's own code, its modules' names and its other layers stay vLLM's. Does not
know which rows are kept (`rows`), nor where the exit may be (`choice`).
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.logger import init_logger

from profiles.pruning_plan import PruningPlan
from vhserve.compat.layers import layer_in_batch, metadata_of, of_some_rows
from vhserve.compat.model_runner import all_rows_are_read, note_prompt_log_probs
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.attention.query_routing import RoutedMetadata, with_routing
from vhserve.engine.image_exit.choice import chosen_exit
from vhserve.engine.image_exit.late_layers import LateLayers, States
from vhserve.engine.image_exit.rows import kept_rows
from vhserve.engine.operators import opaque_operator

logger = init_logger("vllm.vhserve")  # a child of vLLM's logger, whose level and format users set


class Stage:
    """Decoder layers from one up to the last.

    Parameters
    ----------
    layers
        vLLM's, in their order.
    attention
        All attention in them, of text-only heads.
    """

    def __init__(self, layers: Sequence[nn.Module], attention: Sequence[PartialAttention]) -> None:
        self.layers, self.names = tuple(layers), tuple(one.layer_name for one in attention)
        self.late_layers = LateLayers(layers)

    @property
    def name(self) -> str:
        """Attention layer that an operator finds the stage by."""
        return self.names[0]

    def run(self, positions: torch.Tensor, hidden: torch.Tensor, residual: torch.Tensor | None) -> States:
        """Hidden states and residual behind the last layer; zero in the rows that left.

        Parameters
        ----------
        positions
            (tokens,), or (3, tokens) for rotary positions of three axes.
        hidden, residual
            (tokens, hidden size), in front of the first layer.
        """
        metadata: RoutedMetadata | None = metadata_of(self.name)
        kept = None if metadata is None or all_rows_are_read() else kept_rows(metadata.routing)
        if kept is None:
            return self.late_layers(positions, hidden, residual)
        rows = kept.indices
        with of_some_rows(self.names, rows, lambda own: with_routing(own, kept.routing)):
            some = self.late_layers(
                positions.index_select(-1, rows),
                hidden.index_select(0, rows),
                None if residual is None else residual.index_select(0, rows),
            )
        out, left = (torch.zeros_like(hidden).index_copy_(0, rows, one) for one in some)
        return out, left


def leave_images(decoder: nn.Module, plan: PruningPlan, vllm_config: VllmConfig) -> int | None:
    """Let rows of image blocks leave a decoder whose attention has been replaced, where `choice` allows it.

    Returns
    -------
    First layer, 0-based, that computes kept rows only; None where all rows stay.
    """
    holder = next(one for one in decoder.modules() if isinstance(getattr(one, "layers", None), nn.ModuleList))
    first, reason = chosen_exit(holder, plan, vllm_config)
    if reason:
        logger.info("Rows of image blocks are computed in all layers: %s", reason)
    if first is None:
        return None
    held: Any = holder
    layers = [held.layers[index] for index in range(max(first, held.start_layer), held.end_layer)]
    attention = [one for layer in layers for one in layer.modules() if isinstance(one, PartialAttention)]
    if not attention:  # in this part of a pipeline
        return None
    note_prompt_log_probs()
    _enter(Stage(layers, attention), attention[0])
    logger.info("Rows of image blocks leave in front of layer %d of %d", first, plan.geometry.layers)
    return first


def _enter(stage: Stage, found_by: PartialAttention) -> None:
    """Let the stage's layers run as one when the decoder calls the first of them."""
    found_by.exit_stage = stage
    layers: list[Any] = list(stage.layers)  # mypy takes a module's class for unhashable
    layers[0].__class__ = _first_layer(type(layers[0]))  # type: ignore[arg-type]
    layers[0].exit_stage = stage
    for layer in layers[1:]:
        layer.__class__ = _passing_layer(type(layer))  # type: ignore[arg-type]


@functools.cache
def _first_layer(stock: type[nn.Module]) -> type[nn.Module]:
    class FirstOfStage(stock):  # type: ignore[misc, valid-type]
        def forward(
            self, positions: torch.Tensor, hidden_states: torch.Tensor, residual: torch.Tensor | None, **_: None
        ) -> States:
            stage: Stage = self.exit_stage
            if torch.compiler.is_compiling():
                states: States = _image_exit(positions, hidden_states, residual, stage.name)
                return states
            return stage.run(positions, hidden_states, residual)

    return FirstOfStage


@functools.cache
def _passing_layer(stock: type[nn.Module]) -> type[nn.Module]:
    class PassedLayer(stock):  # type: ignore[misc, valid-type]
        def forward(
            self, positions: torch.Tensor, hidden_states: torch.Tensor, residual: torch.Tensor, **_: None
        ) -> States:
            return hidden_states, residual

    return PassedLayer


def _run(positions: torch.Tensor, hidden: torch.Tensor, residual: torch.Tensor | None, layer_name: str) -> States:
    """Opaque to torch.compile: the number of rows that are kept differs from batch to batch.

    What runs within it is compiled by itself, so an engine has two compiled stages.
    """
    layer: PartialAttention = layer_in_batch(layer_name)
    stage: Any = layer.exit_stage
    # vLLM's norms may write where they read.
    states: States = stage.run(positions, hidden.clone(), None if residual is None else residual.clone())
    return states


def _states(positions: torch.Tensor, hidden: torch.Tensor, residual: torch.Tensor | None, layer_name: str) -> States:
    return torch.empty_like(hidden), torch.empty_like(hidden)


_image_exit = opaque_operator("image_exit", _run, _states)
