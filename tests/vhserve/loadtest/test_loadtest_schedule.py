"""When requests are due: Poisson arrivals, and the bounds of a run."""

from itertools import islice

import numpy as np
import pytest
from scipy import stats

from vhserve.loadtest.schedule import Tickets, poisson_arrivals
from vhserve.loadtest.workload import Workload

SEED = 7


def gaps(rate: float, count: int, seed: int = SEED) -> np.ndarray:
    times = np.array(list(islice(poisson_arrivals(rate, np.random.default_rng(seed)), count)))
    return np.diff(times, prepend=0.0)


@pytest.mark.parametrize("rate", [0.5, 8.0, 300.0])
def test_gaps_are_exponential_and_independent(rate: float) -> None:
    print("seed", SEED)
    found = gaps(rate, 20_000)
    assert stats.kstest(found, stats.expon(scale=1 / rate).cdf).pvalue > 0.001
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.03
    # And arrivals in equal windows are Poisson counts: their variance is their mean.
    counts = np.bincount((np.cumsum(found) * rate / 10).astype(int))[:-1]
    assert counts.mean() == pytest.approx(10, rel=0.05)
    assert counts.var() == pytest.approx(10, rel=0.15)


def test_a_seed_gives_the_same_arrivals() -> None:
    assert (gaps(3.0, 50) == gaps(3.0, 50)).all()
    assert (gaps(3.0, 50) != gaps(3.0, 50, seed=8)).any()


def test_warm_up_is_marked_and_the_duration_ends_it() -> None:
    load = Workload(rate=50, warm_up=2, duration=4)
    tickets = list(Tickets(load).poisson(np.random.default_rng(SEED)))
    assert [one.number for one in tickets] == list(range(len(tickets)))
    assert all(one.warm_up == (one.due < 2) for one in tickets)
    assert max(one.due for one in tickets) < 6
    assert 250 < len(tickets) < 350
    late = list(Tickets(load).poisson(np.random.default_rng(SEED), since=3.0))
    assert [one.due for one in late] == [one.due + 3.0 for one in tickets[: len(late)]]
    assert min(one.due for one in late) > 3.0


def test_the_number_of_requests_counts_measured_ones() -> None:
    load = Workload(rate=50, warm_up=2, duration=100, requests=30)
    tickets = list(Tickets(load).poisson(np.random.default_rng(SEED)))
    assert len([one for one in tickets if not one.warm_up]) == 30
    assert len([one for one in tickets if one.warm_up]) > 50


def test_a_closed_loop_gets_tickets_by_the_clock() -> None:
    tickets = Tickets(Workload(rate=0, warm_up=1, duration=2, requests=2))
    found = [tickets.at(now) for now in (0.0, 0.9, 1.0, 1.1, 1.2)]
    assert [one and one.warm_up for one in found] == [True, True, False, False, None]
    assert Tickets(Workload(warm_up=1, duration=2)).at(3.0) is None
