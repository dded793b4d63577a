"""Figures with their 95% intervals, one or of every head.

Does not know how an interval is worked out.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; no interval where there are too few folds to say."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Estimates:
    """The same of every head: arrays of one shape."""

    value: Array
    low: Array | None
    high: Array | None

    @property
    def apart(self) -> int | None:
        """How many intervals do not hold 0; of heads that do not differ, one in twenty would by chance."""
        if self.low is None or self.high is None:
            return None
        return int(((self.low > 0) | (self.high < 0)).sum())
