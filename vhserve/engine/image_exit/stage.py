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
from vhserve.compat.layers import (
    ATTENTION,
    layer_in_batch,
    metadata_of,
    of_some_rows,
    runs_pieces_of_graphs,
    split_graphs_at,
)
from vhserve.compat.model_runner import all_rows_are_read, note_prompt_log_probs
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.attention.query_routing import RoutedMetadata, with_routing
from vhserve.engine.image_exit.choice import chosen_exit
from vhserve.engine.image_exit.late_layers import GivenStates, LateLayers, States
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
    sampled
        Most rows of a request that are sampled from in a step.
    """

    def __init__(self, layers: Sequence[nn.Module], attention: Sequence[PartialAttention], sampled: int) -> None:
        self.layers, self.names = tuple(layers), tuple(one.layer_name for one in attention)
        self.sampled = sampled
        self.late_layers = LateLayers(layers)
        self._inputs = GraphInputs()

    @property
    def name(self) -> str:
        """Attention layer that an operator finds the stage by."""
        return self.names[0]

    def run(self, positions: torch.Tensor, states: GivenStates, out: States) -> None:
        """Write hidden states and residual behind the last layer; zero in the rows that left.

        Parameters
        ----------
        positions
            (tokens,), or (3, tokens) for rotary positions of three axes.
        states
            In front of the first layer, whose residual may be None. They are not changed.
        out
            Where to write.
        """
        metadata: RoutedMetadata | None = metadata_of(self.name)
        kept = None if metadata is None or all_rows_are_read() else kept_rows(metadata.routing, self.sampled)
        if kept is None:
            for to, one in zip(out, self.late_layers(*self._inputs.of(positions, states)), strict=True):
                to.copy_(one)
            return
        rows = kept.indices
        with of_some_rows(self.names, rows, lambda own: with_routing(own, kept.routing)):
            hidden, residual = (None if one is None else one.index_select(0, rows) for one in states)
            some = self.late_layers(positions.index_select(-1, rows), hidden, residual)
        for to, one in zip(out, some, strict=True):
            to.zero_().index_copy_(0, rows, one)


class GraphInputs:
    """Where the late layers find their inputs when all rows go on.

    Pieces of CUDA graphs are captured with their inputs' addresses. An operator's inputs and outputs have fixed ones,
    since the pieces in front of it allocate them; what it gives to the late layers has to be put where it was before.
    """

    def __init__(self) -> None:
        self._buffers: dict[int, torch.Tensor] = {}
        self._places: dict[tuple[int, torch.Size], torch.Tensor] = {}

    def of(self, positions: torch.Tensor, states: GivenStates) -> tuple[Any, ...]:
        """Copies, since vLLM's norms may write where they read."""
        given = positions.contiguous(), *states
        if not runs_pieces_of_graphs():
            return given[0], *(None if one is None else one.clone() for one in states)
        return tuple(None if one is None else self._place(at, one).copy_(one) for at, one in enumerate(given))

    def _place(self, at: int, like: torch.Tensor) -> torch.Tensor:
        """Of the largest batch, which vLLM captures first, smaller ones take a part."""
        key = at, like.shape
        if key not in self._places:
            if at not in self._buffers or self._buffers[at].numel() < like.numel():
                self._buffers[at] = like.new_empty(like.numel())
            self._places[key] = self._buffers[at][: like.numel()].view(like.shape)
        return self._places[key]


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
    if not vllm_config.use_v2_model_runner:  # there, the model state says it
        note_prompt_log_probs()
    split_graphs_at("vhserve::image_exit", ATTENTION, vllm_config)
    speculation = vllm_config.speculative_config
    sampled = 1 + (0 if speculation is None else speculation.num_speculative_tokens)
    _enter(Stage(layers, attention, sampled), attention[0])
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
            out = torch.empty_like(hidden_states), torch.empty_like(hidden_states)
            if torch.compiler.is_compiling():
                _image_exit(positions, hidden_states, residual, *out, stage.name)
            else:
                stage.run(positions, (hidden_states, residual), out)
            return out

    return FirstOfStage


@functools.cache
def _passing_layer(stock: type[nn.Module]) -> type[nn.Module]:
    class PassedLayer(stock):  # type: ignore[misc, valid-type]
        def forward(
            self, positions: torch.Tensor, hidden_states: torch.Tensor, residual: torch.Tensor, **_: None
        ) -> States:
            return hidden_states, residual

    return PassedLayer


def _run(
    positions: torch.Tensor,
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    out_hidden: torch.Tensor,
    out_residual: torch.Tensor,
    layer_name: str,
) -> None:
    """Opaque to torch.compile: the number of rows that are kept differs from batch to batch.

    What runs within it is compiled by itself, so an engine has two compiled stages.
    """
    layer: PartialAttention = layer_in_batch(layer_name)
    layer.exit_stage.run(positions, (hidden, residual), (out_hidden, out_residual))


def _nothing(*given: object) -> None:
    """It returns nothing."""


_image_exit = opaque_operator("image_exit", _run, _nothing, changes=("out_hidden", "out_residual"))
