"""The canary: a small labelled set that is run through the server at intervals, one question at a time.

Owns when it asks, the outcome of a run, and the metrics. Does not know how a question reaches the server.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal

from calibrate.datasets.sample import Sample
from vhserve.evaluation.results import Answer
from vhserve.evaluation.scoring import figures
from vhserve.server.metric_definitions import collector

Outcome = Literal["completed", "failed", "skipped"]

OUTCOMES: Final = ("completed", "failed", "skipped")

Question = tuple[Sample, dict[str, Any]]
"""A sample and its chat message."""

Ask = Callable[[Question], Awaitable[Answer]]

_RETRY_SECONDS: Final = 0.2
"""Seconds between checks whether the server has capacity."""

_FULL: Final = "status 503"


class Canary:
    """Runs over the questions, and exports their accuracy.

    Parameters
    ----------
    dataset
        Its name, the label of all metrics.
    questions
        Asked in this order.
    ask
        Sends one question at the lowest priority, and scores the answer.
    has_capacity
        Whether one more request would delay nobody.
    interval
        Seconds from the start of one run to the start of the next; a run that takes longer is skipped.
    expected_low
        Low end of the interval that the plan records for this dataset; None where it records none.
    """

    def __init__(
        self,
        dataset: str,
        questions: Sequence[Question],
        *,
        ask: Ask,
        has_capacity: Callable[[], bool],
        interval: float,
        expected_low: float | None,
    ) -> None:
        self.dataset = dataset
        self.questions = questions
        self.ask = ask
        self.has_capacity = has_capacity
        self.interval = interval
        self.first: list[str | None] | None = None  # replies of the first complete run
        for outcome in OUTCOMES:
            collector("vhserve_canary_runs_total").labels(dataset=dataset, outcome=outcome)
        if expected_low is not None:
            collector("vhserve_canary_expected_low_ratio").labels(dataset=dataset).set(expected_low)

    async def run_forever(self) -> None:
        """Run until cancelled."""
        while True:
            started = time.monotonic()
            outcome = await self.run()
            collector("vhserve_canary_runs_total").labels(dataset=self.dataset, outcome=outcome).inc()
            await asyncio.sleep(max(0.0, self.interval - (time.monotonic() - started)))

    async def run(self) -> Outcome:
        """Ask every question once."""
        deadline = time.monotonic() + self.interval
        latency = collector("vhserve_canary_request_seconds").labels(dataset=self.dataset)
        answers = []
        for question in self.questions:
            while True:
                while not self.has_capacity():
                    if time.monotonic() > deadline:
                        return "skipped"
                    await asyncio.sleep(_RETRY_SECONDS)
                answer = await self.ask(question)
                if answer.outcome != "error":
                    break
                if not (answer.error or "").startswith(_FULL):
                    return "failed"
                if time.monotonic() > deadline:
                    return "skipped"
                await asyncio.sleep(_RETRY_SECONDS)
            latency.observe(answer.seconds)
            answers.append(answer)
        self.export(answers)
        return "completed"

    def export(self, answers: Sequence[Answer]) -> None:
        """Export the results of a complete run."""
        whole = figures(answers)[-1]
        replies = [answer.reply for answer in answers]
        self.first = self.first or replies
        same = sum(now == then for now, then in zip(replies, self.first, strict=True))

        def gauge(name: str, **labels: str) -> Any:
            return collector(name).labels(dataset=self.dataset, **labels)

        gauge("vhserve_canary_accuracy_ratio").set(whole.accuracy)
        gauge("vhserve_canary_accuracy_interval_ratio", bound="low").set(whole.low)
        gauge("vhserve_canary_accuracy_interval_ratio", bound="high").set(whole.high)
        gauge("vhserve_canary_agreement_ratio").set(same / len(replies))
        gauge("vhserve_canary_samples").set(whole.answered)
        gauge("vhserve_canary_last_success_timestamp_seconds").set(time.time())
