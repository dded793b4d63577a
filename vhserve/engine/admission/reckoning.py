"""Whether a request fits beside those that run, with the replies that all of them will still write.

Owns the reckoning: pure arithmetic on tokens and blocks. Every request writes a token in each step until its reply
ends, and then gives its blocks back; what must fit is what all of them hold together, in each of the coming steps. How
long replies will be is a chance, so the demand of a step has a mean and a deviation, and a quantile of it must fit.
(Past-Future scheduling, Gong et al., ASPLOS 2025, looks ahead likewise, with drawn lengths.) Does not know vLLM,
treatments, or how blocks are laid out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from vhserve.engine.admission.reply_lengths import Floats, Survival

CERTAINTY: Final = 0.95
"""Chance with which the demand of a step must fit."""

HORIZON: Final = 0.9
"""Chance with which the candidate's reply has ended at the last step that is looked at: what comes later is not its."""

_DEVIATIONS: Final = NormalDist().inv_cdf(CERTAINTY)
_SPANS: Final = 64
"""Spans of steps that the time until then is divided into."""


@dataclass(frozen=True)
class Growth:
    """How sequences grow in blocks.

    Attributes
    ----------
    groups
        Number of KV cache groups by the tokens of their blocks, and the most blocks that a sequence holds there (of
        sliding windows; None where it grows on).
    """

    groups: Mapping[tuple[int, int | None], int]

    def blocks_of(self, tokens: int) -> int:
        """Blocks of a sequence of text with so many tokens, over all groups."""
        total = 0
        for (block_size, most), count in self.groups.items():
            blocks = -(-tokens // block_size)
            total += count * (blocks if most is None else min(blocks, most))
        return total

    def blocks(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Blocks of sequences of text with so many tokens, over all groups; of the shape of `tokens`."""
        total = np.zeros_like(tokens)
        for (block_size, most), count in self.groups.items():
            blocks = -(-tokens // block_size)
            total += count * (blocks if most is None else np.minimum(blocks, most))
        return total


@dataclass(frozen=True)
class Holder:
    """A request that holds blocks, or is about to.

    Attributes
    ----------
    tokens
        Tokens of its prompt and of its reply so far.
    generated
        Tokens of its reply so far.
    limit
        Most tokens of its reply.
    held
        Blocks that it holds. Of a waiting request: those of its cached prefix that others hold, too.
    filled
        Blocks that it holds when all `tokens` are computed.
    peak
        Most blocks that it holds until then; more than `filled` where heads evict image blocks.
    """

    tokens: int
    generated: int
    limit: int
    held: int
    filled: int
    peak: int


def fits(
    candidate: Holder, running: Sequence[Holder], used: int, blocks: int, growth: Growth, survival: Survival
) -> bool:
    """Whether the candidate can be taken in beside the running requests.

    Parameters
    ----------
    used
        Blocks in use; fewer than the running ones' together where they share some.
    blocks
        Blocks that may be in use.
    """
    everyone = [*running, candidate]
    if used + sum(one.peak - one.held for one in everyone) > blocks:
        return False
    steps = survival.quantile(HORIZON, candidate.generated, candidate.limit) - candidate.generated
    mean, deviation = demand(everyone, used, max(steps, 1), growth, survival)
    return bool((mean + _DEVIATIONS * deviation <= blocks).all())


def demand(
    requests: Sequence[Holder], used: int, steps: int, growth: Growth, survival: Survival
) -> tuple[Floats, Floats]:
    """Blocks in use in the coming `steps`: mean and standard deviation, for spans of steps of about equal length.

    What a request holds in a span is what it holds at its end, if its reply goes on at its beginning. Blocks that
    several requests share are divided among all requests evenly: what one frees is a little less than it holds.
    """
    edges = np.unique(np.linspace(0, steps, min(steps, _SPANS) + 1).astype(np.int64))
    starts, ends = edges[:-1], edges[1:]
    rows = [(one.tokens, one.generated, one.limit, one.held, one.filled) for one in requests]
    tokens, generated, limit, held, filled = np.asarray(rows, dtype=np.int64).T[:, :, None]
    chance = survival.longer_than(generated + starts) / survival.longer_than(generated)
    chance = np.where(generated + starts < limit, chance, 0.0)
    grown = growth.blocks(tokens + np.minimum(ends, np.maximum(limit - generated, 0))) - growth.blocks(tokens)
    freed = held * min(1.0, used / max(1, held.sum()))
    mean = used + (chance * (filled + grown - held) - (1 - chance) * freed).sum(axis=0)
    variance = (chance * (1 - chance) * (filled + grown - held + freed) ** 2).sum(axis=0)
    return mean, np.sqrt(variance)
