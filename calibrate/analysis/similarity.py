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

Array = npt.NDArray[np.float64]

ALL_ORDERS: Final = 8
"""Up to so many datasets every order is tried (40,320); of more, as many are drawn as `DRAWS`."""
DRAWS: Final = 10_000


def pearson(first: Array, second: Array) -> float | None:
    """Pearson's r of two tables of one shape; `None` where one of them does not vary."""
    a, b = first.ravel() - first.mean(), second.ravel() - second.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / scale, -1, 1)) if scale > 1e-12 * max(1.0, abs(first.mean() * second.mean())) else None


def shuffled_pearson(
    first: Array, second: Array, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float] | None:
    """Pearson's r with the heads of each layer of `second` shuffled: what the layers alone explain.

    Returns
    -------
    Mean, and 2.5% and 97.5% quantile; `None` where r is none.
    """
    if pearson(first, second) is None:
        return None
    rng = np.random.default_rng(seed)
    found = [pearson(first, rng.permuted(second, axis=1)) for _ in range(draws)]
    known = np.array([one for one in found if one is not None])
    low, high = np.quantile(known, [0.025, 0.975])
    return float(known.mean()), float(low), float(high)


def earth_movers_distance(first: Array, second: Array) -> float:
    """Least mean way, Euclidean, that turns one cloud of points into the other, each point of weight one.

    Between clouds of equally many points an optimal transport moves whole points (Birkhoff), so that it is an
    assignment.

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
    a = a - a.mean()
    moved = ranks[orders[:, pairs[0]], orders[:, pairs[1]]]
    centred = moved - moved.mean(1, keepdims=True)
    rhos = centred @ a / np.sqrt((centred**2).sum(1) * (a @ a))
    rho = float(rhos[0])
    return rho, float((rhos >= rho - 1e-12).mean())
