"""Intervals of any figure worked out of folded sums: the figure once more without each fold.

Owns the delete-a-group jackknife (Shao and Tu 1995, chapter 2; Student's t with a degree less than groups). Knows
nothing of what the figure is.
"""

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from calibrate.analysis.tallies import Measured
from calibrate.stats.estimates import Estimate, Estimates

Array = npt.NDArray[np.float64]


def jackknife(measured: Measured, figure: Callable[[Sequence[int]], float | None]) -> Estimate | None:
    """Work out a figure on all folds, and its interval from those without one.

    Parameters
    ----------
    figure
        Takes the folds to use; `None` where they do not give it.

    Returns
    -------
    `None` where all folds together do not give the figure.
    """

    def boxed(folds: Sequence[int]) -> Array | None:
        value = figure(folds)
        return None if value is None else np.array(value, dtype=np.float64)

    found = jackknife_arrays(measured, boxed)
    if found is None:
        return None
    if found.low is None or found.high is None:
        return Estimate(float(found.value), None, None)
    return Estimate(float(found.value), float(found.low), float(found.high))


def jackknife_arrays(measured: Measured, figure: Callable[[Sequence[int]], Array | None]) -> Estimates | None:
    """`jackknife` of a figure that is an array of any shape, the same for all folds; intervals are of each element."""
    used = np.flatnonzero(measured.tally.arrays["samples"].sum(axis=(0, 1))).tolist()
    value = figure(used)
    if value is None:
        return None
    left = [figure([fold for fold in used if fold != out]) for out in used] if len(used) > 1 else []
    known = np.array([one for one in left if one is not None])
    groups = len(known)
    # A fold without which there is no figure is one that all of it hangs on.
    if groups < 2 or groups < len(left):
        return Estimates(value, None, None)
    error = sqrt((groups - 1) / groups) * np.sqrt(np.square(known - known.mean(0)).sum(0))
    reach = float(t.ppf(0.975, groups - 1)) * error
    return Estimates(value, value - reach, value + reach)
