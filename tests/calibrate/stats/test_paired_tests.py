"""Counts of pairs, and McNemar's test against its sum."""

from math import comb

import numpy as np
import pytest

from calibrate.stats.intervals import difference_interval
from calibrate.stats.paired_tests import PairedCounts, mcnemar_exact


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


def test_pairs_are_counted_sample_by_sample():
    first = np.array([True, True, True, False, False, True])
    second = np.array([True, False, False, True, False, True])
    pairs = PairedCounts.of(first, second)
    assert pairs == PairedCounts(both=2, only_first=2, only_second=1, neither=1)
    assert (pairs.samples, pairs.difference) == (6, pytest.approx(second.mean() - first.mean()))
    assert pairs.interval == difference_interval(2, 2, 1, 1)
    assert pairs.p == mcnemar_exact(2, 1)
    assert PairedCounts.of(second, first).difference == -pairs.difference
    with pytest.raises(ValueError, match="same samples"):
        PairedCounts.of(first, second[:-1])
