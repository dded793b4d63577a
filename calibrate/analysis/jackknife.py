"""Intervals of any figure worked out of folded sums: the figure once more without each fold.

Owns the delete-a-group jackknife (Shao and Tu 1995, chapter 2; Student's t with a degree less than groups). Knows
nothing of what the figure is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import t

from calibrate.analysis.tallies import FOLDS, Measured


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; no interval where there are too few folds to say."""

    value: float
    low: float | None
    high: float | None


def jackknife(
    measured: Measured, figure: Callable[[Sequence[int]], float | None], families: Sequence[str | None] = (None,)
) -> Estimate | None:
    """Work out a figure on all folds, and its interval from those without one.

    Parameters
    ----------
    figure
        Takes the folds to use; `None` where they do not give it.
    families
        Whose folds count: those that hold a sample of one of these. `None` is all families.

    Returns
    -------
    `None` where all folds together do not give the figure.
    """
    counts = measured.tally.arrays["samples"].sum(axis=1)
    rows = counts if None in families else counts[[measured.families.index(str(family)) for family in families]]
    used = [fold for fold in range(FOLDS) if rows[:, fold].any()]
    value = figure(used)
    if value is None:
        return None
    left = [figure([fold for fold in used if fold != out]) for out in used] if len(used) > 1 else []
    known = [one for one in left if one is not None]
    if len(known) < max(len(left), 2):
        return Estimate(value, None, None)
    groups = len(known)
    error = sqrt((groups - 1) / groups * float(np.square(np.subtract(known, np.mean(known))).sum()))
    reach = float(t.ppf(0.975, groups - 1)) * error
    return Estimate(value, value - reach, value + reach)
