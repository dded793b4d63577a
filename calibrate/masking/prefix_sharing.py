"""Many treatments of one batch: whatever several of them have in common is computed once.

Owns the sharing. The vision tower and the layers below the first treated one are those of the untreated pass; above it,
treatments that agree on every layer so far are one branch, up to the layer where they part. Several branches may go
through a layer in one call. Does not know why heads are treated, or what the answers should be.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calibrate.masking.cached_forward import Pass
from calibrate.masking.layer_treatments import LayerTreatment, Positions, layers_treated
from calibrate.masking.treatments import decoder_layers, layer_treatments
from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import Batch

STATES_BYTES: Final = 2**30
"""Memory for the states of branches that are under way together."""

_Key = tuple[tuple[str, ...], bytes]


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to treat a model's heads; parameters as for `calibrate.masking.treatments.treated`."""

    treatments: Sequence[Sequence[str]]
    means: npt.ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class _Node:
    """A branch in some layer: its hidden states, `(batch, n, hidden)`, and the variants it stands for."""

    hidden: Tensor
    members: list[int]


class Branches:
    """Variants of a model, ready to be run on batches.

    Parameters
    ----------
    block_size
        Of text-only heads' image blocks; None for single image tokens.
    together
        Branches that go through a layer in one call. More of them use a GPU better; on a CPU 1 is fastest, because a
        layer's tensors stay in its cache.
    check
        Called between two layers, to stop a run.
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
        self._keys = [_keys(one.treatments, own) for one, own in zip(variants, self._treated, strict=True)]
        self._first = [_first(keys) for keys in self._keys]
        # Neighbours in this order have the most in common.
        self._order = sorted(range(len(variants)), key=lambda one: (self._first[one], self._keys[one]))

    def logits(self, batch: Batch) -> Iterator[tuple[int, Tensor]]:
        """Logits of the first answer token, `(batch, vocabulary)`, float32: `(0, …)` of the untreated model first, then
        `(1 + i, …)` of variant i in no certain order."""
        self._check()
        kept = Pass(self._loaded, batch, {first for first in self._first if first < len(self._layers)})
        positions = Positions(self._loaded.image_token_id, self._block_size)
        positions.note(batch.inputs["input_ids"], batch.valid)
        yield 0, kept.logits
        untreated = [one for one in self._order if self._first[one] == len(self._layers)]
        yield from ((1 + one, kept.logits) for one in untreated)
        rest = [one for one in self._order if self._first[one] < len(self._layers)]
        for chunk in self._chunks(rest, kept):
            for node in self._grown(chunk, kept, positions):
                logits = kept.logits_of(node.hidden)
                yield from ((1 + one, logits) for one in node.members)

    def _chunks(self, order: list[int], kept: Pass) -> Iterator[list[int]]:
        if not order:
            return
        state = next(iter(kept.kept.values()))
        size = max(STATES_BYTES // (state.nbytes), self._together)
        yield from (order[start : start + size] for start in range(0, len(order), size))

    def _grown(self, chunk: list[int], kept: Pass, positions: Positions) -> list[_Node]:
        """The branches of some variants behind the last layer."""
        nodes: list[_Node] = []
        for layer in range(self._first[chunk[0]], len(self._layers)):
            if joining := [one for one in chunk if self._first[one] == layer]:
                nodes.append(_Node(kept.kept[layer], joining))
            parted = [(node.hidden, same) for node in nodes for same in self._parted(node.members, layer)]
            nodes = []
            for start in range(0, len(parted), self._together):
                nodes += self._through(layer, parted[start : start + self._together], kept, positions)
        return nodes

    def _parted(self, members: list[int], layer: int) -> list[list[int]]:
        """Variants by how they treat a layer."""
        ordered = sorted(members, key=lambda one: self._keys[one][layer])
        return [list(same) for _, same in groupby(ordered, key=lambda one: self._keys[one][layer])]

    def _through(
        self, layer: int, parted: list[tuple[Tensor, list[int]]], kept: Pass, positions: Positions
    ) -> list[_Node]:
        self._check()
        hidden = torch.cat([one for one, _ in parted]) if len(parted) > 1 else parted[0][0]
        treatments = [self._treated[members[0]][layer] for _, members in parted]
        with layers_treated([self._layers[layer]], [treatments], positions):
            out = kept.through(layer, hidden)
        parts = out.chunk(len(parted))
        return [_Node(part, members) for part, (_, members) in zip(parts, parted, strict=True)]


def _keys(treatments: Sequence[Sequence[str]], layers: list[LayerTreatment]) -> list[_Key]:
    means = [b"" if one.means is None else np.asarray(one.means).tobytes() for one in layers]
    return [(tuple(row), mean) for row, mean in zip(treatments, means, strict=True)]


def _first(keys: list[_Key]) -> int:
    """The first treated layer; the number of layers if there is none."""
    return next((layer for layer, (row, _) in enumerate(keys) if set(row) != {"full"}), len(keys))
