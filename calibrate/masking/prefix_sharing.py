"""Prefix sharing: many variants of one batch, in which layers that several variants have in common run once.

Owns the order of the computation. The vision tower and the layers below the first treated one are those of the
untreated forward pass; above it, variants that treat every layer so far alike share one hidden state, up to the first
layer that they treat differently. Several hidden states may go through a layer in one call. Does not know why heads are
treated, or what the answers should be.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calibrate.masking.cached_forward import CachedForward
from calibrate.masking.layer_treatments import LayerTreatment, layers_treated
from calibrate.masking.positions import Positions
from calibrate.masking.treatments import layer_treatments
from calibrate.models.batches import Batch
from calibrate.models.decoder import decoder_layers
from calibrate.models.loading import LoadedModel
from profiles.treatments import FULL

STATES_BYTES: Final = 2**30
"""Memory limit of the hidden states that are held at the same time."""

_Key = tuple[tuple[str, ...], bytes]


@dataclass(frozen=True, eq=False)
class Variant:
    """One assignment of treatments to a model's heads; fields as for `calibrate.masking.treatments.treated`."""

    treatments: Sequence[Sequence[str]]
    means: npt.ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class _SharedState:
    """Hidden states in front of some layer, `(batch, n, hidden)`, and the variants that have them in common."""

    hidden: Tensor
    variants: list[int]


class PrefixSharing:
    """Runs the variants of a model on batches.

    Parameters
    ----------
    block_size
        Of text-only heads' image blocks; None for single image tokens.
    together
        Hidden states that go through a layer in one call. More of them use a GPU better; on a CPU 1 is fastest, because
        a layer's tensors stay in its cache.
    check
        Called between two layers; raises to stop the run.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        variants: Sequence[Variant],
        *,
        block_size: int | None = None,
        together: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._loaded, self._block_size, self._check = loaded, block_size, check
        self._together = together or (1 if loaded.device.type == "cpu" else 8)
        self._layers = list(decoder_layers(loaded.model))
        self._treated = [layer_treatments(loaded.model, one.treatments, one.means) for one in variants]
        self._keys = [_keys(one.treatments, by_layer) for one, by_layer in zip(variants, self._treated, strict=True)]
        self._first = [_first_treated(keys) for keys in self._keys]
        # Neighbours in this order have the most in common.
        self._order = sorted(range(len(variants)), key=lambda one: (self._first[one], self._keys[one]))

    def logits(self, batch: Batch) -> Iterator[tuple[int, Tensor]]:
        """Logits at the batch's predicting positions, `(batch, [m,] vocabulary)`, float32.

        Yields
        ------
        `(0, …)` of the untreated model first, then `(1 + i, …)` of variant i, in an order that is not specified.
        """
        self._check()
        cached = CachedForward(self._loaded, batch, {first for first in self._first if first < len(self._layers)})
        lengths = None if batch.expected is None else batch.expected.prompt_lengths
        positions = Positions(self._block_size, lengths)
        positions.note(batch.spans, batch.valid)
        yield 0, cached.logits
        untreated = [one for one in self._order if self._first[one] == len(self._layers)]
        yield from ((1 + one, cached.logits) for one in untreated)
        rest = [one for one in self._order if self._first[one] < len(self._layers)]
        for chunk in self._chunks(rest, cached):
            for state in self._last_states(chunk, cached, positions):
                logits = cached.logits_of(state.hidden)
                yield from ((1 + one, logits) for one in state.variants)

    def _chunks(self, order: list[int], cached: CachedForward) -> Iterator[list[int]]:
        if not order:
            return
        state = next(iter(cached.inputs.values()))
        size = max(STATES_BYTES // (state.nbytes), self._together)
        yield from (order[start : start + size] for start in range(0, len(order), size))

    def _last_states(self, chunk: list[int], cached: CachedForward, positions: Positions) -> list[_SharedState]:
        """Hidden states of some variants after the last layer."""
        states: list[_SharedState] = []
        for layer in range(self._first[chunk[0]], len(self._layers)):
            if starting := [one for one in chunk if self._first[one] == layer]:
                states.append(_SharedState(cached.inputs[layer], starting))
            split = [
                _SharedState(state.hidden, alike)
                for state in states
                for alike in self._split_by_layer(state.variants, layer)
            ]
            states = []
            for start in range(0, len(split), self._together):
                states += self._run_layer(layer, split[start : start + self._together], cached, positions)
        return states

    def _split_by_layer(self, variants: list[int], layer: int) -> list[list[int]]:
        """Variants grouped by how they treat a layer."""
        ordered = sorted(variants, key=lambda one: self._keys[one][layer])
        return [list(alike) for _, alike in groupby(ordered, key=lambda one: self._keys[one][layer])]

    def _run_layer(
        self, layer: int, states: list[_SharedState], cached: CachedForward, positions: Positions
    ) -> list[_SharedState]:
        self._check()
        hidden = torch.cat([state.hidden for state in states]) if len(states) > 1 else states[0].hidden
        treatments = [self._treated[state.variants[0]][layer] for state in states]
        with layers_treated([self._layers[layer]], [treatments], positions):
            output = cached.run_layer(layer, hidden)
        parts = output.chunk(len(states))
        return [_SharedState(part, state.variants) for part, state in zip(parts, states, strict=True)]


def _keys(treatments: Sequence[Sequence[str]], layers: list[LayerTreatment]) -> list[_Key]:
    means = [b"" if one.means is None else np.asarray(one.means).tobytes() for one in layers]
    return [(tuple(row), mean) for row, mean in zip(treatments, means, strict=True)]


def _first_treated(keys: list[_Key]) -> int:
    """Index of the first treated layer; the number of layers if there is none."""
    return next((layer for layer, (row, _) in enumerate(keys) if set(row) != {FULL.name}), len(keys))
