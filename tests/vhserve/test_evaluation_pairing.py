"""Pairs of arms: counts sample by sample, the interval of their difference, and what may not be paired."""

import numpy as np
import pytest
from calibrate.statistics import mcnemar_exact, wilson
from made_up_results import arm

from vhserve.evaluation.errors import ResultsMismatch
from vhserve.evaluation.pairing import difference_interval, pair


def test_flips_are_counted_per_family_and_in_all() -> None:
    # Families a and b take turns; the last a is an error in the second arm.
    first, second = arm("cccwwwcc"), arm("cwwcwwec", "pruned")
    a, b, overall = pair(first, second)
    assert (a.family, a.both, a.only_first, a.only_second, a.neither, a.samples) == ("a", 1, 1, 0, 1, 3)
    assert (b.family, b.both, b.only_first, b.only_second, b.neither, b.samples) == ("b", 1, 1, 1, 1, 4)
    assert (overall.both, overall.only_first, overall.only_second, overall.neither) == (2, 2, 1, 2)
    assert overall.difference == pytest.approx(-1 / 7)
    assert overall.p == mcnemar_exact(2, 1)
    assert overall.low < overall.difference < overall.high


def test_order_of_the_second_arm_does_not_matter() -> None:
    first, second = arm("ccwwocec"), arm("cwcwcoce", "pruned")
    shuffled = second.model_copy(update={"answers": second.answers[::-1]})
    assert pair(first, second) == pair(first, shuffled)


def test_nothing_answered_in_both_says_nothing() -> None:
    a, _, overall = pair(arm("ecec"), arm("wewe", "pruned"))
    assert (a.samples, a.difference, a.p, a.low) == (0, None, None, None)
    assert overall.samples == 0


@pytest.mark.parametrize("change", ["fewer", "other id", "other answer", "twice"])
def test_other_samples_are_refused(change: str) -> None:
    first, second = arm("ccww"), arm("cwcw", "pruned")
    answers = list(second.answers)
    if change == "fewer":
        answers.pop()
    elif change == "twice":
        answers[1] = answers[0]
    else:
        update = {"id": "sample/9"} if change == "other id" else {"answer": "7"}
        answers[1] = answers[1].model_copy(update=update)
    with pytest.raises(ResultsMismatch, match="other samples"):
        pair(first, second.model_copy(update={"answers": answers}))


def test_interval_of_independent_halves_follows_newcombe() -> None:
    # With phi = 0 (here: every margin pair is balanced) the interval is the square-and-add of the two Wilson intervals.
    both, only_first, only_second, neither = 25, 25, 25, 25
    low, high = wilson(50, 100)
    expected = float(np.hypot(0.5 - low, high - 0.5))
    assert difference_interval(both, only_first, only_second, neither) == pytest.approx((-expected, expected))


def test_interval_mirrors_when_arms_are_swapped() -> None:
    low, high = difference_interval(70, 11, 4, 15)
    assert difference_interval(70, 4, 11, 15) == pytest.approx((-high, -low))
    assert low < (4 - 11) / 100 < high


@pytest.mark.parametrize("counts", [(10, 0, 0, 0), (0, 0, 0, 10), (0, 10, 0, 0), (0, 0, 10, 0), (1, 0, 0, 0)])
def test_interval_of_extremes_stays_in_range(counts: tuple[int, int, int, int]) -> None:
    low, high = difference_interval(*counts)
    assert -1 <= low <= (counts[2] - counts[1]) / sum(counts) <= high <= 1
    assert low < high


def test_interval_covers_the_truth() -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for truth in ([0.8, 0.08, 0.04, 0.08], [0.5, 0.2, 0.1, 0.2]):
        draws = rng.multinomial(80, truth, size=1500)
        covered = [
            low <= truth[2] - truth[1] <= high for low, high in (difference_interval(*map(int, d)) for d in draws)
        ]
        assert 0.92 < np.mean(covered) < 0.995  # three standard errors around what the method is known to reach
