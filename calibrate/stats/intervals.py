"""How sure an accuracy is: intervals for one share and for the difference of two paired ones, and McNemar's test.

Owns the formulas. Knows counts of right and wrong answers, nothing of models or datasets.
"""

from math import sqrt
from typing import Final

from scipy.stats import binomtest

Z: Final = 1.959963984540054
"""97.5% quantile of the normal distribution: two-sided 95% intervals."""


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95% Wilson score interval of a share (Wilson 1927), without continuity correction.

    Parameters
    ----------
    correct, n
        `0 <= correct <= n`, `n >= 1`.

    Returns
    -------
    Low and high end, within [0, 1], around `correct / n`.

    Raises
    ------
    ValueError
        For counts that are none.
    """
    _check(n, correct)
    share, square = correct / n, Z * Z
    centre = (share + square / (2 * n)) / (1 + square / n)
    reach = Z / (1 + square / n) * sqrt(share * (1 - share) / n + square / (4 * n * n))
    # At 0 and n the ends are 0 and 1 exactly; rounding would put them a hair beside.
    return 0.0 if correct == 0 else centre - reach, 1.0 if correct == n else centre + reach


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


def difference_interval(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """95% interval for the difference of two paired shares, second minus first (Newcombe 1998, method 10).

    Built of both Wilson intervals and the correlation of the pairs, so that it stays sensible where few samples flip,
    or none.

    Parameters
    ----------
    both, only_first, only_second, neither
        Samples that both arms have right, only the first, only the second, and none; one at least in all.

    Returns
    -------
    Low and high end, within [-1, 1], around `(only_second - only_first) / n`.

    Raises
    ------
    ValueError
        For counts that are none.
    """
    counts = (both, only_first, only_second, neither)
    n = sum(counts)
    _check(n, *counts)
    first, second = both + only_first, both + only_second
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    margins = first * (n - first) * second * (n - second)
    cross = float(both * neither - only_first * only_second)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)  # continuity correction, of a positive correlation only
    phi = cross / sqrt(margins) if margins else 0.0
    down, up = (second / n - low2, high1 - first / n), (high2 - second / n, first / n - low1)
    difference = (only_second - only_first) / n
    reach_down, reach_up = (sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0)) for a, b in (down, up))
    return max(difference - reach_down, -1.0), min(difference + reach_up, 1.0)


def _check(n: int, *counts: int) -> None:
    if n < 1 or any(not 0 <= count <= n for count in counts):
        raise ValueError(f"expected counts of at least one sample, but have {', '.join(map(str, counts))} of {n}")
