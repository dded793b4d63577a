"""Spearman's rank correlation, and how sure it is: a bootstrap over items and samples together.

Owns the bootstrap; ranks and correlations are scipy's. Knows arrays of numbers, nothing of heads or models.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from calibrate.stats.correlation import pearson

Floats = npt.NDArray[np.float64]

RESAMPLES: Final = 1000


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Pearson correlation of the ranks along the last axis, ties sharing their mean rank (Spearman 1904).

    Not `scipy.stats.spearmanr`, which of many arrays correlates every one with every other.

    Parameters
    ----------
    x, y
        `(..., items)`, of shapes that broadcast.

    Returns
    -------
    `(...)`, −1 to 1; NaN where one of the two has the same value for all items, or fewer than two items.
    """
    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def bootstrap(x: Floats, losses: Floats, seed: int) -> Floats:
    """Correlations on resamples: items drawn with replacement, and for their losses samples drawn with replacement.

    Both are a choice that could have come out otherwise: which samples were asked, and, where a statement about
    rankings at large is made, on which items.

    Parameters
    ----------
    x
        `(rankings, items)`.
    losses
        `(items, samples)`; the mean over samples is what rankings are compared with.
    seed
        Of the draws, which all rankings share, so that differences between columns are paired.

    Returns
    -------
    `(RESAMPLES, rankings)`; NaN where a resample has the same value for all.
    """
    rng = np.random.default_rng([seed, 0])
    items, samples = losses.shape
    found = np.empty((RESAMPLES, len(x)))
    for number in range(RESAMPLES):
        weights = np.bincount(rng.integers(samples, size=samples), minlength=samples) / samples
        drawn = rng.integers(items, size=items)
        found[number] = spearman(x[:, drawn], (losses @ weights)[drawn])
    return found
