"""Spearman's rank correlation, and how sure it is: a bootstrap over items and samples together.

Owns the formulas. Knows arrays of numbers, nothing of heads or models.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]

RESAMPLES: Final = 1000


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Pearson correlation of the ranks, ties sharing their mean rank (Spearman 1904).

    Returns
    -------
    −1 to 1; NaN where either has the same value for all.
    """
    return float(correlations(np.asarray(x, np.float64)[None], np.asarray(y, np.float64))[0])


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
        found[number] = correlations(x[:, drawn], (losses @ weights)[drawn])
    return found


def correlations(x: Floats, y: Floats) -> Floats:
    """`spearman` of each row of `x`, `(rows, items)`, with `y`, `(items,)`."""
    ranks, other = rankdata(x, axis=1), rankdata(y)
    ranks, other = ranks - ranks.mean(1, keepdims=True), other - other.mean()
    size = np.sqrt((ranks**2).sum(1) * (other**2).sum())
    return np.where(size > 0, ranks @ other / np.where(size > 0, size, 1.0), np.nan).clip(-1, 1)
