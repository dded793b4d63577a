"""How long replies are, by those that have ended and those that go on: a survival function that adapts.

Owns the estimate, Kaplan and Meier's (1958), over the replies of late. A reply that its own limit of tokens ended, or
that still goes on, says only that it is at least so long (it is censored); one that ended by itself says how long.
All lengths are in tokens. Does not know requests, blocks or vLLM.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

WINDOW: Final = 512
"""Replies that are remembered: the last ones that ended."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class ReplyLengths:
    """Lengths of the last `window` replies that ended."""

    def __init__(self, window: int = WINDOW) -> None:
        self._ended: deque[tuple[int, bool]] = deque(maxlen=window)

    def add(self, tokens: int, *, limited: bool) -> None:
        """Take an ended reply into account.

        Parameters
        ----------
        limited
            Whether its limit of tokens ended it, or its client: it would have been at least so long.
        """
        if limited and tokens <= 1:  # scores and aborted prompts, which would push replies out of the window
            return
        self._ended.append((tokens, limited))

    def survival(self, going_on: Iterable[int] = ()) -> "Survival":
        """The chance of a reply to be longer than a number of tokens.

        Parameters
        ----------
        going_on
            Lengths so far of replies that have not ended. Without them those that end first, the short ones, would be
            taken for all.
        """
        by_themselves = [tokens for tokens, limited in self._ended if not limited]
        return Survival.estimate(by_themselves, [*(tokens for tokens, limited in self._ended if limited), *going_on])


class Survival:
    """A falling step function: the chance that a reply is longer than a number of tokens, 1 at first and never 0."""

    def __init__(self, lengths: Integers, chances: Floats) -> None:
        self._lengths = lengths
        self._chances = np.concatenate(([1.0], chances))

    @classmethod
    def estimate(cls, ended: Iterable[int], at_least: Iterable[int]) -> "Survival":
        """Kaplan and Meier's estimate, with one reply beside the seen ones that is longer than all of them.

        That one is Laplace's rule of succession: after n replies the next is longer than all of them with a chance of
        1 / (n + 1). So nothing is certain after one reply, and before the first the chance is 1 at all lengths.

        Parameters
        ----------
        ended
            Lengths of replies that ended by themselves.
        at_least
            Lengths that other replies had at least.
        """
        lengths, counts = np.unique(np.asarray(list(ended), dtype=np.int64), return_counts=True)
        seen = np.sort(np.concatenate((np.repeat(lengths, counts), np.asarray(list(at_least), dtype=np.int64))))
        at_risk = len(seen) - np.searchsorted(seen, lengths) + 1
        chances: Floats = np.cumprod(1 - counts / at_risk, dtype=np.float64)
        return cls(lengths, chances)

    def longer_than(self, tokens: Integers) -> Floats:
        """The chance to be longer than each of `tokens`; of their shape."""
        chances: Floats = self._chances[np.searchsorted(self._lengths, tokens, side="right")]
        return chances

    def quantile(self, share: float, generated: int, limit: int) -> int:
        """The length that a reply of `generated` tokens does not exceed with a chance of `share`; `limit` at most.

        `limit` also where too few replies were so long to say.
        """
        reached = self._chances[1:] <= (1 - share) * self.longer_than(np.asarray([generated]))[0]
        at = np.flatnonzero(reached & (self._lengths > generated))
        return min(limit, int(self._lengths[at[0]])) if len(at) else limit
