"""Pairs of arms: counts sample by sample, the interval of their difference, and what may not be paired."""

import pytest
from result_factories import arm

from calibrate.stats.intervals import difference_interval
from calibrate.stats.paired_tests import mcnemar_exact
from vhserve.evaluation.errors import ResultsMismatch
from vhserve.evaluation.pairing import pair


def test_flips_are_counted_per_family_and_in_all() -> None:
    # Families a and b take turns; the last a is an error in the second arm.
    first, second = arm("cccwwwcc"), arm("cwwcwwec", "pruned")
    a, b, overall = pair(first, second)
    assert (a.family, a.both, a.only_first, a.only_second, a.neither, a.samples) == ("a", 1, 1, 0, 1, 3)
    assert (b.family, b.both, b.only_first, b.only_second, b.neither, b.samples) == ("b", 1, 1, 1, 1, 4)
    assert (overall.both, overall.only_first, overall.only_second, overall.neither) == (2, 2, 1, 2)
    assert overall.difference == pytest.approx(-1 / 7)
    assert overall.p == mcnemar_exact(2, 1)
    assert (overall.low, overall.high) == difference_interval(2, 2, 1, 2)


def test_samples_without_a_family_are_paired_in_all_alone() -> None:
    first, second = (
        one.model_copy(update={"answers": [answer.model_copy(update={"family": "all"}) for answer in one.answers]})
        for one in (arm("ccww"), arm("cwcw", "pruned"))
    )
    (overall,) = pair(first, second)
    assert (overall.family, overall.samples, overall.only_first, overall.only_second) == ("all", 4, 1, 1)


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
