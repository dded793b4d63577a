"""Intervals against published values, their closed form and simulation."""

from math import sqrt

import numpy as np
import pytest

from calibrate.stats.intervals import difference_interval, wilson


def test_wilson_by_hand_and_at_the_ends():
    # z^2 = 3.8415: centre (8/10 + 0.19207) / 1.38415 = 0.71674, reach 1.96 / 1.38415 * sqrt(0.016 + 0.0096036)
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    low, high = wilson(0, 10)
    assert (low, round(high, 4)) == (0.0, 0.2775)  # z^2 / (n + z^2)
    assert wilson(10, 10) == pytest.approx((1 - 0.27753, 1.0), abs=1e-5)
    assert wilson(10, 10)[1] == 1.0


def test_wilson_is_the_closed_form():
    z = 1.959963984540054  # 97.5% quantile of the normal distribution
    for n in (1, 2, 7, 40, 1000):
        for correct in {0, 1, n // 3, n // 2, n - 1, n}:
            share = correct / n
            centre = (share + z * z / (2 * n)) / (1 + z * z / n)
            reach = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
            assert wilson(correct, n) == pytest.approx((centre - reach, centre + reach), abs=1e-12)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_counts_that_are_none_are_refused(correct, n):
    with pytest.raises(ValueError, match="counts"):
        wilson(correct, n)
    with pytest.raises(ValueError, match="counts"):
        difference_interval(correct, 0, 0, n - correct) if n else difference_interval(0, 0, 0, 0)


def test_difference_interval_as_published():
    """Newcombe 1998, table II, method 10: 36, 12, 2, 0; his difference is first minus second."""
    assert difference_interval(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=6e-5)


def test_difference_interval_turns_with_its_arms_and_holds_the_difference(random_seed):
    for a, b, c, d in np.random.default_rng(random_seed).integers(0, 40, (300, 4)).tolist():
        if a + b + c + d == 0:
            continue
        low, high = difference_interval(a, b, c, d)
        assert -1 <= low <= (c - b) / (a + b + c + d) <= high <= 1
        assert difference_interval(a, c, b, d) == pytest.approx((-high, -low), abs=1e-12)


def test_difference_interval_covers_the_truth(random_seed):
    """95% nominal: of 2,000 simulated pairs of arms, the share covered lies within its own error of that."""
    cells, n, trials = np.array([0.80, 0.10, 0.04, 0.06]), 200, 2000
    tables = np.random.default_rng(random_seed).multinomial(n, cells, size=trials)
    truth = cells[2] - cells[1]
    covered = sum(low <= truth <= high for low, high in (difference_interval(*table) for table in tables.tolist()))
    assert 0.92 < covered / trials < 0.98
