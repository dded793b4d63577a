"""Every formula of the analysis against a slow, obvious reference on random inputs."""

import csv
import io
import math
from itertools import combinations, permutations

import numpy as np
import pytest
import scipy.stats
import torch

from calibrate.analysis.claims import above, below, minus
from calibrate.analysis.findings import layer_share
from calibrate.analysis.heads import narrowness
from calibrate.analysis.jackknife import jackknife
from calibrate.analysis.lens import rank_of, settled
from calibrate.analysis.section import as_csv
from calibrate.analysis.similarity import ALL_ORDERS, earth_movers_distance, mantel, pearson, shuffled_pearson
from calibrate.analysis.tallies import FOLDS, JudgedBatch, Measured, Tally, fold_of
from calibrate.stats.estimates import Estimate
from profiles.geometry import ModelGeometry

GEOMETRY = ModelGeometry(layers=3, query_heads=5, kv_heads=5, head_size=32, hidden_size=120, image_tokens=7)


def seeded(seed):
    print("seed", seed)
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(3))
def test_rank_is_the_place_among_all_tokens(seed):
    rng = seeded(seed)
    logits = rng.integers(0, 6, (20, 9)).astype(np.float64)  # with ties
    tokens = rng.integers(0, 9, 20)
    found = rank_of(torch.from_numpy(logits), torch.from_numpy(tokens)).tolist()
    for row, token, rank in zip(logits, tokens, found, strict=True):
        assert rank == sorted(row, reverse=True).index(row[token]) + 1


@pytest.mark.parametrize("seed", range(3))
def test_settled_is_where_the_last_run_of_first_ranks_begins(seed):
    rng = seeded(seed)
    ranks = rng.integers(1, 3, (200, 5))
    ranks[:, -1] = 1
    for row, found in zip(ranks.tolist(), settled(torch.from_numpy(ranks)).tolist(), strict=True):
        assert found == next(layer for layer in range(5) if set(row[layer:]) == {1})


@pytest.mark.parametrize("seed", range(3))
def test_pearson(seed):
    rng = seeded(seed)
    a, b = rng.normal(size=(2, 4, 6))
    r = pearson(a, b)
    assert r == pytest.approx(scipy.stats.pearsonr(a.ravel(), b.ravel()).statistic)
    assert pearson(a, 3 * b - 7) == pytest.approx(r)
    assert pearson(a, -b) == pytest.approx(-r)
    assert pearson(a, a) == pytest.approx(1)
    assert pearson(a, np.full_like(b, 0.3)) is None


def test_shuffled_pearson_is_what_the_layers_explain():
    rng = seeded(5)
    layers = np.repeat(np.arange(6.0)[:, None], 8, 1)
    noise = rng.normal(size=(2, 6, 8))
    mean, low, high = shuffled_pearson(layers + 0.1 * noise[0], layers + 0.1 * noise[1])
    assert 0.95 < low < mean < high
    mean, low, high = shuffled_pearson(noise[0], noise[0])
    assert low < 0 < high < 0.8  # though r itself is 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("points", [1, 4, 7])
def test_earth_movers_distance(points, seed):
    rng = seeded(seed)
    a, b = rng.random((2, points, 2))
    found = earth_movers_distance(a, b)
    ways = [np.linalg.norm(a - b[list(order)], axis=1).mean() for order in permutations(range(points))]
    assert found == pytest.approx(min(ways))
    assert found == pytest.approx(scipy.stats.wasserstein_distance_nd(a, b), abs=1e-6)
    assert found == pytest.approx(earth_movers_distance(b, a))
    assert earth_movers_distance(a, rng.permutation(a)) == pytest.approx(0)
    assert earth_movers_distance(a, a + np.array([0.3, 0.4])) == pytest.approx(0.5)


def test_clouds_of_different_size_are_refused():
    with pytest.raises(ValueError, match="shape"):
        earth_movers_distance(np.zeros((3, 2)), np.zeros((4, 2)))


def distances(rng, things):
    points = rng.random((things, 2))
    return np.linalg.norm(points[:, None] - points[None], axis=2)


@pytest.mark.parametrize("seed", range(3))
def test_mantel(seed):
    rng = seeded(seed)
    a, b = distances(rng, 5), distances(rng, 5)
    pairs = list(combinations(range(5), 2))

    def rho(order):
        first, second = ([x[i, j] for i, j in pairs] for x in (a, b[np.ix_(order, order)]))
        return scipy.stats.spearmanr(first, second).statistic

    found = [rho(list(order)) for order in permutations(range(5))]
    value, p = mantel(a, b)
    assert value == pytest.approx(found[0])
    assert p == pytest.approx(np.mean(np.array(found) >= found[0] - 1e-9))


def test_mantel_at_its_ends():
    rng = seeded(1)
    a = distances(rng, 6)
    assert mantel(a, 2 * a) == pytest.approx((1, 1 / math.factorial(6)))
    many = distances(rng, ALL_ORDERS + 3)
    assert mantel(many, many)[1] < 0.001
    assert mantel(a[:3, :3], a[:3, :3]) is None
    assert mantel(a, np.zeros_like(a)) is None


def test_layer_share():
    rng = seeded(2)
    product = rng.random((4, 6))
    between = sum(6 * (row.mean() - product.mean()) ** 2 for row in product)
    assert layer_share(product) == pytest.approx(between / sum((x - product.mean()) ** 2 for x in product.ravel()))
    assert layer_share(np.repeat(np.arange(4.0)[:, None], 6, 1)) == pytest.approx(1)
    assert layer_share(np.repeat(np.arange(6.0)[None], 4, 0)) == pytest.approx(0)
    assert layer_share(np.ones((4, 6))) == 0


def made_up(rng, samples):
    """Samples with scores of every head, and what a slow reading of them needs."""
    shape = (GEOMETRY.layers, samples, GEOMETRY.query_heads)
    image, concentration = rng.random(shape), rng.random(shape)
    box = image * rng.random(shape)
    has_box = rng.random(samples) < 0.6
    box[:, ~has_box] = 0
    return {
        "image": image,
        "box": box,
        "concentration": concentration,
        "has_box": has_box,
        "names": [f"sample {number}" for number in rng.permutation(samples)],
        "families": [("a", "b", "c")[number] for number in rng.integers(0, 3, samples)],
        "right": rng.random(samples) < 0.7,
        "among": rng.random(samples) < 0.9,
        "ranks": rng.integers(1, 9, (samples, GEOMETRY.layers)).astype(float),
    }


def tally(given, order, sizes):
    """Add samples up in an order, in batches of these sizes."""
    result, begin = Tally.empty(GEOMETRY), 0
    for size in sizes:
        chosen = order[begin : begin + size]
        begin += size
        tables = {"image_weight": "image", "box_weight": "box", "concentration": "concentration"}
        scores = {table: torch.from_numpy(given[name][:, chosen]) for table, name in tables.items()}
        answers = JudgedBatch(*([given[name][i] for i in chosen] for name in ("names", "families", "right", "among")))
        result = result.plus(answers, scores, given["has_box"][chosen].tolist(), given["ranks"][chosen])
    assert begin == len(order)
    return Measured(result)


def test_samples_without_a_family_are_in_the_whole_alone():
    given = made_up(seeded(4), 12)
    given["families"] = ["all", "a", "all", "b"] * 3
    measured = tally(given, np.arange(12), [5, 7])
    assert (measured.families, measured.groups) == (["a", "b"], [None, "a", "b"])
    assert measured.means().samples == 12
    assert measured.means("a").samples == 3
    assert measured.right("b").tolist() == given["right"][3::4].tolist()
    given["families"] = ["all"] * 12
    measured = tally(given, np.arange(12), [12])
    assert (measured.families, measured.groups) == (["all"], ["all"])
    assert measured.means("all").samples == 12


@pytest.mark.parametrize("seed", range(3))
def test_means_against_a_slow_reading(seed):
    rng = seeded(seed)
    given = made_up(rng, 60)
    measured = tally(given, np.arange(60), [7, 50, 3])
    for family in (None, "a", "b", "c"):
        for right in (None, True, False):
            for folds in (None, [0, 3, 4, 5, 11, 17]):
                own = [
                    i
                    for i in range(60)
                    if family in (None, given["families"][i])
                    and right in (None, given["right"][i])
                    and (folds is None or fold_of(given["names"][i]) in folds)
                ]
                found = measured.means(family, right=right, folds=folds)
                if not own:
                    assert found is None
                    continue
                assert (found.samples, found.with_box) == (len(own), int(given["has_box"][own].sum()))
                image, narrow = given["image"][:, own], given["concentration"][:, own]
                np.testing.assert_allclose(found.image_weight, image.mean(1))
                np.testing.assert_allclose(found.concentration, narrow.mean(1))
                np.testing.assert_allclose(found.product, (image * narrow).mean(1))
                np.testing.assert_allclose(found.score[1], (image * narrow).mean(1)[1] / 2)
                with_box = [i for i in own if given["has_box"][i]]
                if with_box:
                    np.testing.assert_allclose(found.box_weight, given["box"][:, with_box].mean(1))
                else:
                    assert found.box_weight is None
                weights = image.sum((1, 2))
                np.testing.assert_allclose(narrowness(found), (image * narrow).sum((1, 2)) / weights)
        own = [i for i in range(60) if family in (None, given["families"][i])]
        assert measured.right(family).tolist() == given["right"][own].tolist()
        assert measured.among(family).tolist() == given["among"][own].tolist()
        np.testing.assert_array_equal(measured.ranks(family), given["ranks"][own])


@pytest.mark.parametrize("seed", range(3))
def test_order_and_batches_of_samples_change_nothing(seed):
    rng = seeded(seed)
    given = made_up(rng, 40)
    first = tally(given, np.arange(40), [40])
    moved = tally(given, rng.permutation(40), [1, 3, 20, 16])
    for family in "abc":
        for name in ("image_weight", "box_weight", "concentration", "product"):
            a, b = (getattr(measured.means(family), name) for measured in (first, moved))
            np.testing.assert_allclose(a, b, rtol=1e-12)
        assert sorted(map(tuple, first.ranks(family))) == sorted(map(tuple, moved.ranks(family)))
    ends = [
        jackknife(measured, lambda folds, measured=measured: float(measured.means(folds=folds).image_weight.mean()))
        for measured in (first, moved)
    ]
    assert ends[0].low == pytest.approx(ends[1].low, rel=1e-9)


def test_the_jackknife_of_a_mean_is_the_mean_s_own_interval():
    """With one sample in every fold it is Student's t."""
    rng = seeded(0)
    names = {fold_of(f"sample {number}"): f"sample {number}" for number in range(500)}
    given = made_up(rng, FOLDS) | {"names": [names[fold] for fold in range(FOLDS)]}
    measured = tally(given, np.arange(FOLDS), [FOLDS])
    found = jackknife(measured, lambda folds: float(measured.means(folds=folds).image_weight[1, 2]))
    values = given["image"][1, :, 2]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_no_interval_from_one_fold_and_no_figure_from_nothing():
    given = made_up(seeded(3), 3) | {"names": ["the same"] * 3}
    measured = tally(given, np.arange(3), [3])
    assert jackknife(measured, lambda folds: 1.0) == Estimate(1.0, None, None)
    assert jackknife(measured, lambda folds: None) is None


def test_claims_are_decided_by_their_intervals():
    verdicts = [above("", Estimate(1, low, high), 1, "").verdict for low, high in ((1.1, 2), (0, 0.9), (0, 2))]
    assert verdicts == ["holds", "does not hold", "not decided"]
    verdicts = [below("", Estimate(1, low, high), 1, "").verdict for low, high in ((1.1, 2), (0, 0.9), (0, 2))]
    assert verdicts == ["does not hold", "holds", "not decided"]
    assert above("", Estimate(9, None, None), 1, "").verdict == "not decided"
    assert above("", None, 1, "", "why not").verdict == "not measured"
    assert minus(Estimate(5, 4, 7), Estimate(1, -3, 4)) == Estimate(4, 4 - math.hypot(1, 3), 4 + math.hypot(2, 4))


def test_csv_can_be_read_back():
    rows = [{"name": 'with "quotes", and comma', "value": 0.12345678}, {"name": "b", "value": None, "more": True}]
    read = list(csv.DictReader(io.StringIO(as_csv(rows), newline="")))
    assert read == [
        {"name": 'with "quotes", and comma', "value": "0.123457", "more": ""},
        {"name": "b", "value": "", "more": "True"},
    ]
