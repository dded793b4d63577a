"""Correlations against numpy's and scipy's of one pair, and the bootstrap against new draws."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from calibrate.stats.correlation import pearson
from calibrate.stats.rank_correlation import bootstrap, spearman


def test_many_at_a_time_are_each_by_itself():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (20, 15)).astype(float), rng.integers(0, 6, 15).astype(float)  # with ties
    np.testing.assert_allclose(pearson(x, y), [np.corrcoef(row, y)[0, 1] for row in x])
    np.testing.assert_allclose(spearman(x, y), [spearmanr(row, y).statistic for row in x])
    assert spearman(x[0], y).shape == ()


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_what_does_not_vary_has_no_correlation(correlation):
    y = np.random.default_rng(0).random(5)
    found = correlation(np.stack([np.ones(5), y, -y]), y)
    np.testing.assert_allclose(found, [np.nan, 1, -1])
    assert np.isnan(correlation(y, np.zeros(5)))
    assert np.isnan(correlation(y[:1], y[1:2]))
    np.testing.assert_allclose(correlation(np.array([[1.0, 1.0], [1.0, 2.0]]), y[:2]), [np.nan, np.sign(y[1] - y[0])])


def test_bootstrap_is_as_wide_as_chance():
    """The spread over resamples is that over new draws of items and samples from the same source."""
    rng = np.random.default_rng(1)

    def draw():
        worth = rng.normal(size=60)
        return (worth + rng.normal(size=60))[None], worth[:, None] + 3 * rng.normal(size=(60, 30))

    anew = np.array([spearman(x[0], losses.mean(1)) for x, losses in (draw() for _ in range(400))])
    widths = [bootstrap(*draw(), seed)[:, 0].std() for seed in range(3)]
    assert np.mean(widths) == pytest.approx(anew.std(), rel=0.3)
    x, losses = draw()
    both = bootstrap(np.vstack([x, x]), losses, 0)
    np.testing.assert_array_equal(both[:, 0], both[:, 1])  # the draws are shared
