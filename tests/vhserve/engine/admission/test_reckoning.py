"""Admission that reckons with replies: its arithmetic, and what comes of it in a simulated scheduler."""

import random

import numpy as np
import pytest
from admission_simulation import BLOCK, GROWTH, LENGTHS, Course, draw, oracle, reckon, simulate, stock
from hypothesis import given
from hypothesis import strategies as st

from vhserve.engine.admission.reckoning import Growth, Holder, demand, fits
from vhserve.engine.admission.reply_lengths import Survival

UNKNOWN = Survival.estimate([], [])
BLOCKS = 300


def a_holder(rng: random.Random, limit: int = 300) -> Holder:
    """Of one that is computed, or is not yet."""
    generated = rng.randrange(limit - 1)
    tokens = rng.randint(1, 400) + generated
    filled = -(-tokens // BLOCK)
    held = rng.choice([filled, rng.randint(0, filled)])
    return Holder(tokens, generated, limit, held, filled, filled + rng.choice([0, 7]))


@given(st.integers(0, 10**6))
def test_without_any_reply_all_are_reckoned_at_their_limits(seed: int) -> None:
    """Each grows by a token a step and then is gone; within a span of steps by what its end needs."""
    rng = random.Random(seed)
    requests = [a_holder(rng) for _ in range(rng.randint(1, 5))]
    used = sum(one.held for one in requests)
    mean, deviation = demand(requests, used, 40, GROWTH, UNKNOWN)
    exact = [
        sum(
            -(-(one.tokens + min(step + 1, one.limit - one.generated)) // BLOCK)
            for one in requests
            if one.generated + step < one.limit
        )
        for step in range(40)
    ]
    np.testing.assert_allclose(mean, exact)
    assert not deviation.any()


def test_what_is_expected_is_the_mean_of_many_draws() -> None:
    rng = random.Random(6)
    ended = [rng.randint(1, 300) for _ in range(400)]
    requests = [Holder(100 + g, g, 10**6, -(-(100 + g) // BLOCK), -(-(100 + g) // BLOCK), 0) for g in (0, 50, 200)]
    mean, deviation = demand(requests, sum(one.held for one in requests), 60, GROWTH, Survival.estimate(ended, []))
    drawn = []
    for _ in range(4000):
        lengths = [rng.choice([one for one in [*ended, 10**6] if one > holder.generated]) for holder in requests]
        alive = [
            [-(-(holder.tokens + step + 1) // BLOCK) if holder.generated + step < length else 0 for step in range(60)]
            for holder, length in zip(requests, lengths, strict=True)
        ]
        drawn.append(np.sum(alive, axis=0))
    np.testing.assert_allclose(mean, np.mean(drawn, axis=0), rtol=0.03)
    np.testing.assert_allclose(deviation, np.std(drawn, axis=0), rtol=0.1, atol=0.1)


def test_a_cached_prefix_is_not_paid_twice() -> None:
    """Ten requests hold one prompt of 40 blocks together, and one of their own each; an eleventh comes."""
    running = [Holder(41 * BLOCK, 0, BLOCK, 41, 41, 41) for _ in range(10)]
    same, other = (Holder(41 * BLOCK, 0, BLOCK, shared, 41, 41) for shared in (40, 0))
    used = 40 + 10
    assert fits(same, running, used, used + 1 + 11, GROWTH, UNKNOWN)
    assert not fits(other, running, used, used + 1 + 11, GROWTH, UNKNOWN)


def test_image_blocks_that_are_evicted_count_until_the_prompt_is_computed() -> None:
    waiting = Holder(10 * BLOCK, 0, BLOCK, held=0, filled=3, peak=10)
    running = [Holder(5 * BLOCK, 0, BLOCK, held=5, filled=5, peak=5)]
    assert not fits(waiting, running, 5, 14, GROWTH, UNKNOWN)
    assert fits(waiting, running, 5, 15, GROWTH, UNKNOWN)  # and later 3 + 5 and one more each


def test_windows_grow_no_further_than_they_are_wide() -> None:
    growth = Growth({(BLOCK, None): 2, (BLOCK, 3): 5, (2 * BLOCK, None): 1})
    assert growth.blocks(np.asarray([1, 2 * BLOCK, 10 * BLOCK])).tolist() == [2 + 5 + 1, 4 + 10 + 1, 20 + 15 + 5]


@pytest.fixture(scope="module", params=[(kind, seed) for kind in LENGTHS for seed in (1, 2)], ids=lambda one: f"{one}")
def courses(request: pytest.FixtureRequest) -> dict[str, Course]:
    """The same requests under each rule: 400, of which some twenty are in a pool at once."""
    kind, seed = request.param
    rules = {"stock": stock, "reckon": reckon, "oracle": oracle}
    made = {name: simulate(draw(kind, 400, seed), BLOCKS, rule) for name, rule in rules.items()}
    for name, course in made.items():
        print(
            f"{kind}, seed {seed}, {name}: {course.preempted_of_hundred:.1f} preemptions of 100, "
            f"use {course.used():.2f}, later {course.used(0.5):.2f}, {course.steps} steps"
        )
    return made


def test_few_are_preempted(courses: dict[str, Course]) -> None:
    assert courses["stock"].preempted_of_hundred > 10
    assert courses["reckon"].preempted_of_hundred < 5
    assert courses["oracle"].preempted_of_hundred == 0


def test_memory_is_not_left_idle_for_long(courses: dict[str, Course]) -> None:
    """Beside one who knows how long replies will be: at least 75% of its use, and at least 85% when some have ended."""
    assert courses["reckon"].used() > 0.75 * courses["oracle"].used()
    assert courses["reckon"].used(0.25) > 0.85 * courses["oracle"].used(0.25)
    assert courses["reckon"].rate(200) > 0.85 * courses["oracle"].rate(200)


def test_requests_begin_in_their_order_and_something_always_runs(courses: dict[str, Course]) -> None:
    course = courses["reckon"]
    begun = [one.begun for one in course.requests]
    assert None not in begun
    assert begun == sorted(begun, key=lambda step: step or 0)
    assert course.idle == 0


@pytest.mark.parametrize("seed", range(12))
def test_every_request_is_served_in_bounded_time(seed: int) -> None:
    """A request begins when all before it have ended, at the latest: no more than the steps of each of them alone."""
    rng = random.Random(seed)
    kind, blocks = rng.choice(list(LENGTHS)), rng.choice([45, 60, 100])
    requests = draw(kind, 40, seed)  # of at most 1,424 tokens, which is 45 blocks
    course = simulate(requests, blocks, reckon, budget=rng.choice([64, 512]), longest=10**5)
    alone = 0
    for one in course.requests:
        assert one.begun is not None
        assert one.begun <= alone
        assert one.ended is not None
        # Twice: what is preempted is computed again, and it is first then.
        alone += 2 * (-(-one.prompt // 64) + one.reply) + 1
        assert one.ended <= alone


@pytest.mark.parametrize(("first", "then"), [(1.0, 4.0), (4.0, 1.0)])
def test_it_adapts_when_lengths_shift(first: float, then: float) -> None:
    course, known = (
        simulate(
            draw("exponential", 800, 9, limit=2048, factor=lambda number: (first if number < 300 else then) / 4),
            BLOCKS,
            rule,
        )
        for rule in (reckon, oracle)
    )
    print(f"{course.preempted_of_hundred:.1f} of 100, rates {course.rate(500):.3f} and {known.rate(500):.3f}")
    assert course.preempted_of_hundred < 5
    assert course.rate(500) > 0.85 * known.rate(500)
