"""Pearson's correlation, of one pair of arrays or of many at a time.

Owns its value where one of the two does not vary: NaN, and no warning. The formula is scipy's. Knows arrays of
numbers, nothing of heads or models.
"""

import warnings

import numpy as np
import numpy.typing as npt
from scipy.stats import DegenerateDataWarning, pearsonr

Floats = npt.NDArray[np.float64]


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Pearson's r along the last axis (Pearson 1896).

    Parameters
    ----------
    x, y
        `(..., items)`, of shapes that broadcast.

    Returns
    -------
    `(...)`, −1 to 1; NaN where one of the two has the same value for all items, or fewer than two items.
    """
    first, second = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    if first.shape[-1] < 2:
        return np.full(first.shape[:-1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        return np.asarray(pearsonr(first, second, axis=-1).statistic, dtype=np.float64)
