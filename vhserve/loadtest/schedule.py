"""When requests are due: Poisson arrivals, and the bounds of a run.

Owns the order of tickets and which of them are warm-up. Keeps no clock: times come from the caller, in seconds after
the run's start.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vhserve.loadtest.workload import Workload


@dataclass(frozen=True)
class Ticket:
    """One request that is due.

    Attributes
    ----------
    number
        Of all tickets of this process, warm-up included, from 0.
    due
        When it should be sent, in seconds after the run's start; latencies count from here.
    warm_up
        Whether it is in no figure.
    """

    number: int
    due: float
    warm_up: bool


def poisson_arrivals(rate: float, rng: np.random.Generator) -> Iterator[float]:
    """Times of a Poisson process without end: gaps are exponential with mean `1 / rate` seconds."""
    now = 0.0
    while True:
        now += float(rng.exponential(1.0 / rate))
        yield now


class Tickets:
    """Issues tickets until the duration is over or the number of measured requests is reached.

    Parameters
    ----------
    load
        Its `warm_up`, `duration` and `requests` are the bounds.
    """

    def __init__(self, load: Workload) -> None:
        self._load = load
        self._number = 0
        self._measured = 0

    def at(self, due: float) -> Ticket | None:
        """The ticket of a request that is due now or later; `None` when the run is over by then."""
        warm_up = due < self._load.warm_up
        if due >= self._load.warm_up + self._load.duration or self._measured >= self._load.requests:
            return None
        ticket = Ticket(self._number, due, warm_up)
        self._number += 1
        self._measured += not warm_up
        return ticket

    def poisson(self, rng: np.random.Generator, since: float = 0.0) -> Iterator[Ticket]:
        """All tickets of an open loop, to be sent at their time, whatever became of earlier ones.

        Parameters
        ----------
        since
            When the process begins, in seconds after the run's start.
        """
        for due in poisson_arrivals(self._load.rate, rng):
            ticket = self.at(since + due)
            if ticket is None:
                return
            yield ticket
