"""A scheduler without an engine: requests of a pool of blocks, by vLLM's rules, with admission of three kinds.

Steps have a budget of tokens; running requests come first, and the last of them is preempted when blocks run out.
Waiting ones are taken in in their order: `stock` if their prompt fits, `reckon` by `vhserve.engine.admission`, and
`oracle` by the lengths that replies will have. Judges nothing.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vhserve.engine.admission.reckoning import Growth, Holder, fits
from vhserve.engine.admission.reply_lengths import ReplyLengths

BLOCK = 32
GROWTH = Growth({(BLOCK, None): 1})


@dataclass
class Simulated:
    """A request: what it is, and how far it is. Times are in steps."""

    number: int
    prompt: int
    reply: int
    limit: int
    computed: int = 0
    generated: int = 0
    begun: int | None = None
    ended: int | None = None

    @property
    def held(self) -> int:
        return -(-self.computed // BLOCK)

    def blocks(self, generated: int) -> int:
        return -(-(self.prompt + generated) // BLOCK)

    def holder(self) -> Holder:
        filled = self.blocks(self.generated)
        tokens = self.prompt + self.generated
        return Holder(tokens, self.generated, self.limit, self.held, filled, max(self.held, filled))


@dataclass
class Course:
    """What came of a simulation.

    Attributes
    ----------
    use
        Share of the blocks in use, for each step in which a request waited.
    idle
        Steps in which nothing ran while a request waited that stock admission would have taken in.
    """

    requests: list[Simulated]
    blocks: int
    steps: int = 0
    preemptions: int = 0
    use: list[float] = field(default_factory=list)
    idle: int = 0
    lengths: ReplyLengths = field(default_factory=ReplyLengths)

    @property
    def preempted_of_hundred(self) -> float:
        return 100 * self.preemptions / len(self.requests)

    def used(self, since: float = 0.0) -> float:
        """Mean use, from a share of the steps on."""
        later = self.use[int(since * len(self.use)) :]
        return sum(later) / len(later)

    def rate(self, since: int) -> float:
        """Requests that ended in a step, after the first `since` ones."""
        ends = sorted(one.ended or 0 for one in self.requests)
        return (len(ends) - since) / (ends[-1] - ends[since])


Rule = Callable[[Simulated, Sequence[Simulated], Course], bool]


def stock(waiting: Simulated, running: Sequence[Simulated], course: Course) -> bool:
    return sum(one.held for one in running) + waiting.blocks(waiting.generated) <= course.blocks


def reckon(waiting: Simulated, running: Sequence[Simulated], course: Course) -> bool:
    if not stock(waiting, running, course):
        return False
    if not running:
        return True
    survival = course.lengths.survival([one.generated for one in running])
    used = sum(one.held for one in running)
    return fits(waiting.holder(), [one.holder() for one in running], used, course.blocks, GROWTH, survival)


def oracle(waiting: Simulated, running: Sequence[Simulated], course: Course) -> bool:
    """All of them fit until the end of each, whose lengths are known."""
    everyone = [*running, waiting]
    if sum(max(one.held, one.blocks(one.generated)) for one in everyone) > course.blocks:
        return False
    for first in everyone:
        steps = first.reply - first.generated
        there = [one for one in everyone if one.reply - one.generated >= steps]
        if sum(one.blocks(one.generated + steps) for one in there) > course.blocks:
            return False
    return True


def simulate(
    requests: list[Simulated], blocks: int, rule: Rule, *, budget: int = 512, at_once: int = 64, longest: int = 10**6
) -> Course:
    """Serve all requests, which are there from the beginning.

    Raises
    ------
    RuntimeError
        Not all have ended after `longest` steps.
    """
    course = Course(requests, blocks)
    waiting, running = deque(requests), list[Simulated]()
    while waiting or running:
        left, before = budget, course.preemptions
        left = _run(running, waiting, course, left)
        while waiting and left > 0 and course.preemptions == before and len(running) < at_once:
            if not rule(waiting[0], running, course):
                course.idle += not running and stock(waiting[0], running, course)
                break
            one = waiting.popleft()
            one.computed = min(left, one.prompt + one.generated)
            one.begun = course.steps if one.begun is None else one.begun
            left -= one.computed
            running.append(one)
        if waiting:
            course.use.append(sum(one.held for one in running) / blocks)
        for one in [one for one in running if one.computed >= one.prompt + one.generated]:
            one.generated += 1
            if one.generated >= one.reply:
                running.remove(one)
                one.ended = course.steps
                course.lengths.add(one.generated, limited=one.generated >= one.limit)
        course.steps += 1
        if course.steps > longest:
            raise RuntimeError(f"{len(waiting)} requests wait and {len(running)} run after {longest} steps")
    return course


def _run(running: list[Simulated], waiting: deque[Simulated], course: Course, left: int) -> int:
    """Compute tokens of the running requests; what is left of the budget."""
    used = sum(one.held for one in running)
    index = 0
    while index < len(running) and left > 0:
        one = running[index]
        tokens = min(left, max(1, one.prompt + one.generated - one.computed))
        wanted = -(-(one.computed + tokens) // BLOCK) - one.held
        while used + wanted > course.blocks and one in running:
            victim = running.pop()
            used -= victim.held
            victim.computed = 0
            course.preemptions += 1
            waiting.appendleft(victim)
        if one not in running:
            break
        one.computed += tokens
        used += wanted
        left -= tokens
        index += 1
    return left


def draw(
    kind: str, count: int, seed: int, *, limit: int = 1024, factor: Callable[[int], float] = lambda number: 1
) -> list[Simulated]:
    """Requests of one kind of reply lengths.

    Parameters
    ----------
    factor
        What the length of a reply is multiplied by, by the request's number.
    """
    rng = random.Random(f"{kind} {seed}")
    made = []
    for number in range(count):
        length = max(1, round(factor(number) * LENGTHS[kind](rng)))
        own = limit if kind != "at_their_limit" else length
        made.append(Simulated(number, rng.randint(64, 400), min(length, own), own))
    return made


LENGTHS: dict[str, Callable[[random.Random], float]] = {
    "at_their_limit": lambda rng: rng.choice([64, 256]),
    "exponential": lambda rng: rng.expovariate(1 / 200),
    "lognormal": lambda rng: rng.lognormvariate(math.log(100), 1),
    "short_or_long": lambda rng: 10 if rng.random() < 0.8 else 500,
    "uniform": lambda rng: rng.randint(16, 512),
    "heavy_tail": lambda rng: 30 * rng.paretovariate(1.2),
}
"""Lengths of replies in tokens, by the kind of their distribution."""
