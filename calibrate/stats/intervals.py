"""95% intervals for a share of right answers, and for the difference of two paired shares.

Owns Newcombe's interval, which scipy lacks; Wilson's is scipy's. Knows counts of right and wrong answers, nothing of
models or datasets.
"""

from math import sqrt

from scipy.stats import binomtest


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95% Wilson score interval of a share (Wilson 1927), without continuity correction.

    Parameters
    ----------
    correct, n
        Right answers and all answers; `0 <= correct <= n`, `n >= 1`.

    Returns
    -------
    Low and high end, within [0, 1], around `correct / n`; exactly 0 and 1 for none and all right.

    Raises
    ------
    ValueError
        For a negative count, for more right answers than answers, and for no answer at all.
    """
    _check(n, correct)
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


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
        For a negative count, for more right answers than answers, and for no answer at all.
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
