"""Which reply counts as right, and how outcomes are counted."""

import pytest
from result_factories import arm

from calibrate.stats.intervals import wilson
from vhserve.evaluation.scoring import figures, score

DIGITS = tuple("1234567")
LETTERS = tuple("ABCD")


@pytest.mark.parametrize(
    ("reply", "answer", "options", "outcome"),
    [
        ("3", "3", DIGITS, "correct"),
        (" 3\n", "3", DIGITS, "correct"),
        ("3.", "3", DIGITS, "correct"),
        ("3 red circles", "3", DIGITS, "correct"),
        ("33", "3", DIGITS, "off_list"),
        ("4", "3", DIGITS, "wrong"),
        ("There are 3", "3", DIGITS, "off_list"),
        ("", "3", DIGITS, "off_list"),
        ("YES", "yes", ("yes", "no"), "correct"),
        ("No, there is none.", "yes", ("yes", "no"), "wrong"),
        ("B. a red circle", "B", LETTERS, "correct"),
        ("(b)", "B", LETTERS, "correct"),
        ("E", "B", LETTERS, "off_list"),
        ("A  Red\nCircle!", "a red circle", ("a red circle", "a blue square"), "correct"),
        ("a red circle and more", "a red circle", ("a red circle", "a blue square"), "off_list"),
        ("a blue square", "a red circle", ("a red circle", "a blue square"), "wrong"),
        ("anything", "something", (), "wrong"),
        ("something else", "something", (), "correct"),
    ],
)
def test_score(reply: str, answer: str, options: tuple[str, ...], outcome: str) -> None:
    assert score(reply, answer, options) == outcome


def test_figures_keep_failed_requests_out_of_the_accuracy() -> None:
    a, b, overall = arm("ccwecoee").figures  # family a has samples 0, 2, 4, 6: c w c e; family b: c e o e
    assert (a.family, a.samples, a.answered, a.correct, a.off_list, a.errors) == ("a", 4, 3, 2, 0, 1)
    assert (b.family, b.samples, b.answered, b.correct, b.off_list, b.errors) == ("b", 4, 2, 1, 1, 2)
    assert (overall.family, overall.samples, overall.answered, overall.correct) == ("all", 8, 5, 3)
    assert overall.accuracy == 3 / 5
    assert (overall.low, overall.high) == wilson(3, 5)


def test_a_family_without_answers_has_no_accuracy() -> None:
    a, b, _ = arm("ecec").figures
    assert (a.errors, a.accuracy, a.low, a.high) == (2, None, None, None)
    assert b.accuracy == 1


def test_no_answers_no_families() -> None:
    (overall,) = figures([])
    assert (overall.family, overall.samples, overall.accuracy) == ("all", 0, None)
