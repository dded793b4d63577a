"""The estimate of reply lengths, against counting, and against lengths that change."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhserve.engine.admission.reply_lengths import WINDOW, ReplyLengths, Survival

LENGTHS = st.lists(st.integers(1, 50), max_size=30)


@given(LENGTHS)
def test_without_open_ends_it_counts(ended: list[int]) -> None:
    """With one reply beside the seen ones that is longer than all of them."""
    survival = Survival.estimate(ended, [])
    tokens = np.arange(60)
    counted = [(1 + sum(one > length for one in ended)) / (1 + len(ended)) for length in tokens]
    np.testing.assert_allclose(survival.longer_than(tokens), counted)


@given(LENGTHS, LENGTHS)
def test_it_falls_and_open_ends_raise_it(ended: list[int], at_least: list[int]) -> None:
    tokens = np.arange(60)
    chances = Survival.estimate(ended, at_least).longer_than(tokens)
    assert (np.diff(chances) <= 0).all()
    assert 0 < chances[-1] <= chances[0] <= 1
    assert (chances >= Survival.estimate(ended, []).longer_than(tokens) - 1e-12).all()


@given(LENGTHS, LENGTHS, st.integers(0, 49), st.integers(50, 80), st.sampled_from([0.5, 0.9]))
def test_the_quantile_is_the_first_length_that_few_exceed(
    ended: list[int], at_least: list[int], generated: int, limit: int, share: float
) -> None:
    survival = Survival.estimate(ended, at_least)
    quantile = survival.quantile(share, generated, limit)
    assert generated < quantile <= limit
    so_far, before, then = survival.longer_than(np.asarray([generated, quantile - 1, quantile]))
    assert before > (1 - share) * so_far or quantile == generated + 1
    assert then <= (1 - share) * so_far or quantile == limit


def test_before_replies_have_ended_it_is_the_limit() -> None:
    lengths = ReplyLengths()
    assert lengths.survival().quantile(0.9, 0, 700) == 700
    for _ in range(8):
        lengths.add(20, limited=False)
    assert lengths.survival().quantile(0.9, 0, 700) == 700
    lengths.add(20, limited=False)  # nine of ten, with the one that is longer than all of them
    assert lengths.survival().quantile(0.9, 0, 700) == 20
    assert lengths.survival().quantile(0.9, 20, 700) == 700  # none was longer


def test_limits_do_not_shorten_what_others_are_thought_to_be() -> None:
    """Half of the clients ask for 16 tokens at most; the others' replies are ten times as long."""
    rng = random.Random(3)
    lengths, own = ReplyLengths(), []
    for number in range(WINDOW):
        natural = rng.randint(100, 220)
        if number % 2:
            lengths.add(16, limited=True)
        else:
            own.append(natural)
            lengths.add(natural, limited=False)
    assert lengths.survival().quantile(0.5, 0, 1000) == pytest.approx(float(np.median(own)), abs=5)
    for _ in range(2 * WINDOW):
        lengths.add(1, limited=True)  # scores, which are no replies
    assert lengths.survival().quantile(0.5, 0, 1000) == pytest.approx(float(np.median(own)), abs=5)


def test_replies_that_end_first_are_not_taken_for_all() -> None:
    """Of 64 that began together, the four shortest have ended."""
    rng = random.Random(4)
    natural = sorted(rng.randint(10, 500) for _ in range(64))
    lengths = ReplyLengths()
    for one in natural[:4]:
        lengths.add(one, limited=False)
    survival = lengths.survival([natural[3]] * 60)
    assert survival.quantile(0.5, 0, 1000) == 1000
    assert survival.longer_than(np.asarray([natural[3]]))[0] > 0.9


@pytest.mark.parametrize(("first", "then"), [(100, 400), (400, 100)])
def test_it_follows_lengths_that_shift(first: int, then: int) -> None:
    rng = random.Random(5)
    lengths = ReplyLengths()
    for _ in range(WINDOW):
        lengths.add(round(first * rng.uniform(0.5, 1.5)), limited=False)
    assert lengths.survival().quantile(0.5, 0, 2000) == pytest.approx(first, rel=0.1)
    for _ in range(WINDOW):
        lengths.add(round(then * rng.uniform(0.5, 1.5)), limited=False)
    assert lengths.survival().quantile(0.5, 0, 2000) == pytest.approx(then, rel=0.1)
