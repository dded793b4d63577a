"""Metrics of published datasets: by hand, against slow references, and whatever the order."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.datasets.families import by_family
from calibrate.datasets.metrics import METRICS, Counted, count, said_yes

COUNTED = st.builds(
    Counted,
    family=st.sampled_from(["a", "b", "c"]),
    answer=st.sampled_from(["yes", "no"]),
    said=st.sampled_from(["yes", "no", "Yes.", "No, there is none", "well", ""]),
    right=st.booleans(),
    group=st.sampled_from([None, "1", "2", "3"]),
)


def polled(answer, said):
    return Counted("random", answer, said, answer == said)


def test_samples_without_a_family_count_in_all_alone_and_once():
    told = [Counted(family, "1", "1", right) for family, right in (("all", True), ("a", False), ("all", True))]
    assert list(count("accuracy", told)) == ["a", "all"]
    assert count("accuracy", told)["all"] == {"accuracy": pytest.approx(2 / 3)}
    assert list(count("accuracy", told[::2])) == ["all"]
    assert {name: own.tolist() for name, own in by_family(["all", "a", "all"]).items()} == {
        "all": [True, True, True],
        "a": [False, True, False],
    }


def test_yes_no_by_hand():
    # 3 hits, 1 false alarm, 2 misses, 4 right rejections
    answered = [polled("yes", "yes")] * 3 + [polled("no", "yes")] + [polled("yes", "no")] * 2 + [polled("no", "no")] * 4
    figures = METRICS["yes_no"](answered)
    assert figures == {
        "accuracy": 0.7,
        "precision": 0.75,
        "recall": 0.6,
        "f1": pytest.approx(2 * 0.75 * 0.6 / 1.35),
        "yes_ratio": 0.4,
    }
    assert METRICS["yes_no"]([polled("no", "no")]) == {
        "accuracy": 1.0,
        "precision": None,
        "recall": None,
        "f1": None,
        "yes_ratio": 0.0,
    }


@pytest.mark.parametrize(
    ("reply", "yes"),
    [
        ("no", False),
        ("No, there is no dog. Yes, a cat.", False),
        ("There is not one.", False),
        ("Yes. No dog, though.", True),
        ("yes", True),
        ("I see nothing", True),  # as in the published script: what does not deny, affirms
        ("", True),
    ],
)
def test_replies_are_read_as_pope_s_script_reads_them(reply, yes):
    assert said_yes(reply) == yes


def test_circular_needs_every_turn():
    turns = [("one", True), ("one", True), ("two", True), ("two", False), (None, True), (None, False)]
    answered = [Counted("a", "A", "A", right, group) for group, right in turns]
    assert METRICS["circular"](answered) == {"circular_accuracy": 0.5, "accuracy": pytest.approx(4 / 6)}


def test_nothing_answered_has_no_figures():
    for metric in METRICS:
        assert set(count(metric, [])) == {"all"}
        assert set(count(metric, [])["all"].values()) == {None}


@settings(deadline=None, max_examples=50)
@given(st.lists(COUNTED, max_size=30), st.randoms(use_true_random=False))
def test_order_changes_nothing_and_families_come_with_all(answered: list[Counted], rng: random.Random):
    mixed = rng.sample(answered, len(answered))
    for metric in METRICS:
        figures = count(metric, answered)
        assert count(metric, mixed) == figures
        assert list(figures) == [*dict.fromkeys(one.family for one in answered), "all"]
        assert all(value is None or 0 <= value <= 1 for family in figures.values() for value in family.values())
        for family in set(figures) - {"all"}:
            assert figures[family] == METRICS[metric]([one for one in answered if one.family == family])


@settings(deadline=None, max_examples=50)
@given(st.lists(COUNTED, min_size=1, max_size=30))
def test_circular_against_the_slow_way(answered: list[Counted]):
    names = {one.group for one in answered if one.group is not None}
    whole = [all(one.right for one in answered if one.group == name) for name in names]
    whole += [one.right for one in answered if one.group is None]
    figures = METRICS["circular"](answered)
    assert figures["circular_accuracy"] == pytest.approx(sum(whole) / len(whole))
    hits, said = sum(map(said_and_meant, answered)), sum(said_yes(one.said) for one in answered)
    polls = METRICS["yes_no"](answered)
    assert polls["precision"] == (pytest.approx(hits / said) if said else None)


def said_and_meant(one: Counted) -> bool:
    return said_yes(one.said) and one.answer == "yes"
