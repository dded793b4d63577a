"""Intervals and McNemar's test against published values, scipy and brute force."""

from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from calibrate.stats.intervals import difference_interval, mcnemar_exact, wilson


def test_wilson_by_hand_and_at_the_ends():
    # z^2 = 3.8415: centre (8/10 + 0.19207) / 1.38415 = 0.71674, reach 1.96 / 1.38415 * sqrt(0.016 + 0.0096036)
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    low, high = wilson(0, 10)
    assert (low, round(high, 4)) == (0.0, 0.2775)  # z^2 / (n + z^2)
    assert wilson(10, 10) == pytest.approx((1 - 0.27753, 1.0), abs=1e-5)
    assert wilson(10, 10)[1] == 1.0


def test_wilson_is_scipys():
    for n in (1, 2, 7, 40, 1000):
        for correct in {0, 1, n // 3, n // 2, n - 1, n}:
            interval = binomtest(correct, n).proportion_ci(method="wilson")
            assert wilson(correct, n) == pytest.approx((interval.low, interval.high), abs=1e-12)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_counts_that_are_none_are_refused(correct, n):
    with pytest.raises(ValueError, match="counts"):
        wilson(correct, n)
    with pytest.raises(ValueError, match="counts"):
        difference_interval(correct, 0, 0, n - correct) if n else difference_interval(0, 0, 0, 0)


def test_mcnemar_against_the_sum():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_exact(6, 6) == 1.0
    for b, c in [(1, 9), (3, 4), (12, 30), (0, 1), (200, 260)]:
        tail = sum(comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
        assert mcnemar_exact(b, c) == pytest.approx(min(2 * tail, 1.0), rel=1e-9)
        assert mcnemar_exact(b, c) == mcnemar_exact(c, b)
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 3)


def test_difference_interval_as_published():
    """Newcombe 1998, table II, method 10: 36, 12, 2, 0; his difference is first minus second."""
    assert difference_interval(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=6e-5)


def test_difference_interval_turns_with_its_arms_and_holds_the_difference():
    seed = np.random.default_rng().integers(1 << 30)
    print("seed", seed)
    for a, b, c, d in np.random.default_rng(seed).integers(0, 40, (300, 4)).tolist():
        if a + b + c + d == 0:
            continue
        low, high = difference_interval(a, b, c, d)
        assert -1 <= low <= (c - b) / (a + b + c + d) <= high <= 1
        assert difference_interval(a, c, b, d) == pytest.approx((-high, -low), abs=1e-12)


def test_difference_interval_covers_the_truth():
    """95% nominal: of 2,000 simulated pairs of arms, the share covered lies within its own error of that."""
    seed = np.random.default_rng().integers(1 << 30)
    print("seed", seed)
    cells, n, trials = np.array([0.80, 0.10, 0.04, 0.06]), 200, 2000
    tables = np.random.default_rng(seed).multinomial(n, cells, size=trials)
    truth = cells[2] - cells[1]
    covered = sum(low <= truth <= high for low, high in (difference_interval(*table) for table in tables.tolist()))
    assert 0.92 < covered / trials < 0.98
