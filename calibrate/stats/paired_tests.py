"""Two arms on the same samples: counts of right answers in pairs, and the tests and intervals that follow from them.

Owns what is worked out of pairs. Knows right and wrong answers, nothing of models or datasets.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from calibrate.stats.intervals import difference_interval


@dataclass(frozen=True)
class PairedCounts:
    """How many samples two arms have right.

    Attributes
    ----------
    both, only_first, only_second, neither
        Samples that both arms have right, only the first, only the second, and none. `only_first` and `only_second` are
        the flips, the discordant pairs of McNemar's test.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def of(cls, first: npt.ArrayLike, second: npt.ArrayLike) -> "PairedCounts":
        """Count the pairs of two arms.

        Parameters
        ----------
        first, second
            Whether each arm has a sample right, `(samples,)`, the same samples in the same order.

        Raises
        ------
        ValueError
            For arms of different length.
        """
        a, b = np.asarray(first, dtype=np.bool_), np.asarray(second, dtype=np.bool_)
        if a.shape != b.shape:
            raise ValueError(f"arms must have the same samples, but have {a.shape} and {b.shape}")
        return cls(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))

    @property
    def samples(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the second arm minus that of the first, −1 to 1; of one sample at least."""
        return (self.only_second - self.only_first) / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of `difference` (Newcombe's method 10); of one sample at least."""
        return difference_interval(self.both, self.only_first, self.only_second, self.neither)

    @property
    def p(self) -> float:
        """Two-sided p-value of McNemar's exact test."""
        return mcnemar_exact(self.only_first, self.only_second)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947): are flips one way likelier than the other?

    Parameters
    ----------
    b, c
        Samples that only the first arm has right, and that only the second has. Order does not matter.

    Returns
    -------
    p, in (0, 1]; 1 where there is no flip at all.

    Raises
    ------
    ValueError
        For a negative count.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative, but are {b} and {c}")
    return float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0
