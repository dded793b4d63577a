"""Which queries of a step lie in blocks that partial heads drop, from the image spans of the requests.

Owns what a worker remembers of its requests for that, and the answer for one step. It is known on the host before the
device has computed anything, so shapes are exact and nobody waits. Does not know how a model runner tells of requests
(`compat.model_state`), nor what is done with the queries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from profiles.image_spans import SpanRule, Spans
from profiles.names import TreatmentName
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS, Treatment
from vhserve.engine.attention.query_routing import HostRows
from vhserve.engine.kv_cache.image_spans import spans_of, unseen_blocks


@dataclass(frozen=True)
class StepRequests:
    """The requests of a step, in the order of the batch.

    Attributes
    ----------
    names
        Request ids.
    computed, scheduled
        (requests,) tokens that are computed, and that this step computes. Exact while a prompt is computed; later an
        upper bound where replies are guessed ahead.
    starts
        (requests + 1,) first query of each.
    """

    names: Sequence[str]
    computed: np.ndarray
    scheduled: np.ndarray
    starts: np.ndarray


class KnownQueries:
    """Queries of a step that heads of a treatment keep, where they drop some.

    Parameters
    ----------
    dropped
        (queries,) bool, in the order of the batch.
    starts
        (requests + 1,) first query of each request in the batch.
    device
        Of the tensors.
    """

    def __init__(self, dropped: np.ndarray, starts: np.ndarray, device: torch.device) -> None:
        self.rows = HostRows(np.flatnonzero(~dropped), starts[1:].astype(np.int64) - 1)
        self.starts = np.searchsorted(self.rows.kept, starts).astype(np.int32)
        self._device = device

    rows: HostRows
    """Where in the batch they are."""

    starts: np.ndarray
    """(requests + 1,) int32: first kept query of each request, among those that are kept."""

    @property
    def most(self) -> int:
        """Most kept queries of a request."""
        return int(np.diff(self.starts).max(initial=0))

    @cached_property
    def kept_indices(self) -> torch.Tensor:
        """Indices of the kept ones on the device."""
        return async_tensor_h2d(self.rows.kept, self._device)

    @cached_property
    def query_start_loc(self) -> torch.Tensor:
        """`starts` on the device."""
        return async_tensor_h2d(self.starts, self._device)


class DroppedBlocks:
    """Image blocks of a prompt that heads of a treatment drop.

    Parameters
    ----------
    flags
        (blocks,) bool; the blocks behind them are kept.
    size
        Tokens of a block.
    """

    def __init__(self, flags: np.ndarray, size: int) -> None:
        self._flags, self._size = flags, size
        self._before = [0, *(np.cumsum(flags) * size).tolist()]
        self.end = len(flags) * size

    end: int
    """First token behind the last of them."""

    def tokens_before(self, end: int) -> int:
        """Dropped tokens in front of a token."""
        if end >= self.end:
            return self._before[-1]
        block, rest = divmod(end, self._size)
        return self._before[block] + (rest if self._flags[block] else 0)

    def at(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) bool: which of these tokens are dropped; `stop` is at most `end`."""
        dropped: np.ndarray = self._flags[np.arange(start, stop) // self._size]
        return dropped


class StepQueries:
    """What is known of one step; what is asked for several layers is computed once.

    Parameters
    ----------
    requests
        Of the step.
    blocks
        By request id and treatment; a request that drops nothing is not there.
    device
        Of the tensors.
    """

    def __init__(
        self,
        requests: StepRequests,
        blocks: Mapping[str, Mapping[TreatmentName, DroppedBlocks]],
        device: torch.device,
    ) -> None:
        self._requests, self._device = requests, device
        self._blocks = [blocks.get(name, {}) for name in requests.names]
        self._known: dict[TreatmentName, KnownQueries | None] = {}
        self._longest: dict[TreatmentName, int] = {}

    def of(self, treatment: TreatmentName) -> KnownQueries | None:
        """Queries that heads of a treatment keep; None when they drop none."""
        if treatment not in self._known:
            dropped = self._dropped(treatment)
            self._known[treatment] = (
                KnownQueries(dropped, self._requests.starts, self._device) if dropped.any() else None
            )
        return self._known[treatment]

    def longest(self, treatment: TreatmentName) -> int:
        """Most tokens of a request that heads of a treatment keep once the step is computed; an upper bound."""
        if treatment not in self._longest:
            ends = (self._requests.computed + self._requests.scheduled).tolist()
            kept = (
                end - (one[treatment].tokens_before(end) if treatment in one else 0)
                for end, one in zip(ends, self._blocks, strict=True)
            )
            self._longest[treatment] = max(kept, default=0)
        return self._longest[treatment]

    def _dropped(self, treatment: TreatmentName) -> np.ndarray:
        requests = self._requests
        dropped = np.zeros(int(requests.starts[-1]), bool)
        places = zip(requests.computed.tolist(), requests.scheduled.tolist(), requests.starts.tolist(), strict=False)
        for one, (first, tokens, start) in zip(self._blocks, places, strict=True):
            if treatment in one and first < one[treatment].end:
                stop = min(first + tokens, one[treatment].end)
                dropped[start : start + stop - first] = one[treatment].at(first, stop)
        return dropped


class RequestBlocks:
    """Blocks that the requests of a worker drop, by treatment; those of text alone have none.

    Parameters
    ----------
    treatments
        Those of the plan under which heads drop blocks of prompts.
    block_size
        Tokens of a KV block.
    device
        Of the tensors that steps make.
    """

    def __init__(self, treatments: Iterable[Treatment], rule: SpanRule, block_size: int, device: torch.device) -> None:
        self._treatments, self._rule, self._size, self._device = tuple(treatments), rule, block_size, device
        self._blocks: dict[str, dict[TreatmentName, DroppedBlocks]] = {}

    def add(self, name: str, features: Sequence[Any]) -> None:
        """A request and its `mm_features`; one of this name that is there already is replaced."""
        self.remove(name)
        spans = spans_of(features, self._rule)
        dropped = {one.name: self._dropped(one, spans) for one in self._treatments}
        if any(one.end for one in dropped.values()):
            self._blocks[name] = dropped

    def _dropped(self, treatment: Treatment, spans: Spans) -> DroppedBlocks:
        blocks = list(unseen_blocks(spans, self._size, treatment.seen_in_prompt))
        flags = np.zeros(blocks[-1] + 1 if blocks else 0, bool)
        flags[blocks] = True
        return DroppedBlocks(flags, self._size)

    def remove(self, name: str) -> None:
        """Forget a request, if it is known."""
        self._blocks.pop(name, None)

    def step(
        self, names: Sequence[str], computed: np.ndarray, scheduled: np.ndarray, starts: np.ndarray
    ) -> StepQueries:
        """What is known of a step; see `StepRequests` for what its requests are given as."""
        return StepQueries(StepRequests(names, computed, scheduled, starts), self._blocks, self._device)


def request_blocks(plan: PruningPlan, block_size: int, device: torch.device) -> RequestBlocks:
    """Those of a worker that serves a plan.

    Parameters
    ----------
    block_size
        Tokens of a KV block.
    """
    treatments = [one for one in TREATMENTS.values() if one.is_masked and plan.heads(one.name)]
    return RequestBlocks(treatments, plan.span_rule, block_size, device)
