"""How alike two heads' pictures are: Pearson's r, the earth mover's distance, and whether distances go together.

Owns the formulas. Knows tables of heads and matrices of distances, nothing of models or datasets.
"""

from itertools import permutations
from math import factorial
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from calibrate.stats import correlation

Array = npt.NDArray[np.float64]

ALL_ORDERS: Final = 8
"""Up to so many datasets every order is tried (40,320); of more, as many are drawn as `DRAWS`."""
DRAWS: Final = 10_000


def pearson(first: Array, second: Array) -> float | None:
    """Pearson's r of two tables of one shape, such as `(layers, query heads)`; `None` where one does not vary."""
    spread = first.std() * second.std() * first.size
    if spread <= 1e-12 * max(1.0, abs(first.mean() * second.mean())):
        return None
    return float(correlation.pearson(first.ravel(), second.ravel()))


def shuffled_pearson(
    first: Array, second: Array, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float] | None:
    """Pearson's r with the heads of each layer of `second` shuffled: what the layers alone explain.

    Parameters
    ----------
    first, second
        `(layers, query heads)`.

    Returns
    -------
    Mean, and 2.5% and 97.5% quantile; `None` where r is none.
    """
    if pearson(first, second) is None:
        return None
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rng.permuted(second, axis=1).ravel() for _ in range(draws)])
    found = correlation.pearson(first.ravel(), shuffled)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(found.mean()), float(low), float(high)


def earth_movers_distance(first: Array, second: Array) -> float:
    """Least mean way, Euclidean, that turns one cloud of points into the other, each point of weight one.

    Between clouds of equally many points an optimal transport moves whole points (Birkhoff), so that it is an
    assignment. The same as `scipy.stats.wasserstein_distance_nd`, whose linear program has a variable for each pair of
    points: a million for the heads of a 7B model.

    Parameters
    ----------
    first, second
        Points, both `(points, axes)`.

    Raises
    ------
    ValueError
        For clouds of different shape.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"clouds must have one shape and some points, but have {first.shape} and {second.shape}")
    ways = cdist(first, second)
    return float(ways[linear_sum_assignment(ways)].mean())


def mantel(first: Array, second: Array, seed: int = 0) -> tuple[float, float] | None:
    """Do two distances between the same things go together (Mantel 1967, on ranks)?

    Parameters
    ----------
    first, second
        Distances, both symmetric, `(things, things)`.

    Returns
    -------
    Spearman's rho of the pairs; and p, the share of orders of the things, the given one among them, with at least that
    rho: one-sided. `None` for fewer than 4 things, or where one distance is the same everywhere.
    """
    things = len(first)
    pairs = np.triu_indices(things, 1)
    if things < 4 or np.ptp(first[pairs]) == 0 or np.ptp(second[pairs]) == 0:
        return None
    a, ranks = rankdata(first[pairs]), np.zeros((things, things))
    ranks[pairs] = rankdata(second[pairs])
    ranks += ranks.T
    if things <= ALL_ORDERS:
        orders = np.array(list(permutations(range(things))))
    else:
        rng = np.random.default_rng(seed)
        drawn = [rng.permutation(things) for _ in range(min(DRAWS, factorial(things)) - 1)]
        orders = np.array([np.arange(things), *drawn])
    rhos = correlation.pearson(a, ranks[orders[:, pairs[0]], orders[:, pairs[1]]])
    rho = float(rhos[0])
    return rho, float((rhos >= rho - 1e-12).mean())
