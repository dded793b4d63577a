"""The canary: what its runs come to by scripted answers, and one run on a real server."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_prompts import image
from live_server import Server, ask
from oracle import TinyModel
from prometheus_client import REGISTRY

from calibrate.datasets.sample import Sample
from calibrate.stats.intervals import wilson
from vhserve.evaluation.results import Answer
from vhserve.evaluation.scoring import score
from vhserve.server.monitoring import queue_state
from vhserve.server.monitoring.canary import Canary, Question

QUESTIONS: list[Question] = [
    (Sample(f"s{number}", image(number, (4, 4)), "q", "yes" if number % 4 else "no", "f", ("yes", "no")), {})
    for number in range(8)
]


def value(name: str, dataset: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"dataset": dataset, **labels})


class Script:
    """Answers by a function of the question's number and the run's; counts who asks at once."""

    def __init__(self, says: Callable[[int, int], str | int]) -> None:
        self.says = says
        self.asked = self.at_once = self.most_at_once = 0

    async def __call__(self, question: Question) -> Answer:
        sample = question[0]
        said = self.says(int(sample.id[1:]), self.asked // len(QUESTIONS))
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        reply = said if isinstance(said, str) else None
        return Answer(
            id=sample.id,
            family=sample.family,
            answer=sample.answer,
            reply=reply,
            outcome="error" if reply is None else score(reply, sample.answer, sample.options),
            error=f"status {said}" if reply is None else None,
            seconds=0.03,
        )


def canary(dataset: str, script: Script, **settings: Any) -> Canary:
    defaults: dict[str, Any] = {"has_capacity": lambda: True, "interval": 60.0, "expected_low": None}
    return Canary(dataset, QUESTIONS, ask=script, **defaults | settings)


def test_a_run_is_exported_and_the_next_is_compared_with_the_first() -> None:
    # The second run says `no` to one question more.
    script = Script(lambda number, run: "no" if run and number == 3 else "yes")
    here = canary("compared", script, expected_low=0.4)
    before = time.time()
    assert asyncio.run(here.run()) == "completed"
    assert value("vhserve_canary_accuracy_ratio", "compared") == 6 / 8
    low, high = wilson(6, 8)
    assert value("vhserve_canary_accuracy_interval_ratio", "compared", bound="low") == low
    assert value("vhserve_canary_accuracy_interval_ratio", "compared", bound="high") == high
    assert value("vhserve_canary_agreement_ratio", "compared") == 1
    assert value("vhserve_canary_samples", "compared") == 8
    assert value("vhserve_canary_expected_low_ratio", "compared") == 0.4
    assert value("vhserve_canary_request_seconds_count", "compared") == 8
    assert value("vhserve_canary_request_seconds_bucket", "compared", le="0.05") == 8
    assert before <= (value("vhserve_canary_last_success_timestamp_seconds", "compared") or 0) <= time.time()
    assert asyncio.run(here.run()) == "completed"
    assert value("vhserve_canary_accuracy_ratio", "compared") == 5 / 8
    assert value("vhserve_canary_agreement_ratio", "compared") == 7 / 8
    assert script.most_at_once == 1


def test_a_failed_run_leaves_the_figures_of_the_latest_complete_one() -> None:
    script = Script(lambda number, run: 500 if run and number == 5 else "yes")
    here = canary("failing", script)
    assert [asyncio.run(here.run()) for _ in range(2)] == ["completed", "failed"]
    assert value("vhserve_canary_accuracy_ratio", "failing") == 6 / 8
    assert value("vhserve_canary_expected_low_ratio", "failing") is None


def test_a_full_server_is_asked_again_later() -> None:
    refused = iter([503, 503])
    script = Script(lambda number, run: next(refused, "yes"))
    assert asyncio.run(canary("full", script).run()) == "completed"
    assert script.asked == 10


def test_it_does_not_ask_while_users_wait() -> None:
    script = Script(lambda number, run: "yes")
    assert asyncio.run(canary("waiting", script, has_capacity=lambda: False, interval=0.5).run()) == "skipped"
    assert script.asked == 0
    assert value("vhserve_canary_accuracy_ratio", "waiting") is None


def test_it_runs_again_after_its_interval_and_counts_how_runs_end() -> None:
    first: Iterator[str | int] = iter(["yes", 500, "yes"])
    script = Script(lambda number, run: next(first) if number == 0 else "yes")

    async def some_time() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(canary("again", script, interval=0.3).run_forever(), 0.75)

    asyncio.run(some_time())
    runs = {
        outcome: value("vhserve_canary_runs_total", "again", outcome=outcome)
        for outcome in ("completed", "failed", "skipped")
    }
    assert runs == {"completed": 2, "failed": 1, "skipped": 0}


def test_capacity_follows_what_engines_report(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(queue_state.time, "monotonic", lambda: now)
    monkeypatch.setattr(queue_state, "_waiting", {})
    assert queue_state.has_capacity()
    queue_state.report(0, 0)
    queue_state.report(1, 3)
    assert not queue_state.has_capacity()
    queue_state.report(1, 0)
    assert queue_state.has_capacity()
    queue_state.report(1, 3)
    now += 10  # silent since: it is idle, or reports to another process
    assert queue_state.has_capacity()


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_on_a_server(server: Server, models: dict[str, TinyModel], canary_seeds: list[int]) -> None:
    dataset = {"dataset": "labelled.jsonl"}
    server.wait_for("vhserve_canary_runs_total", lambda runs: runs == 1, outcome="completed", **dataset)
    correct = 0
    for seed in canary_seeds:
        said = ask(server, str(models["gqa"].path), seed).choices[0].message.content or ""
        correct += score(said, "triangles" if seed % 2 else "none", ("triangles", "none")) == "correct"
    # The tiny model says the same with one token as the first word of eight.
    assert server.value("vhserve_canary_accuracy_ratio", **dataset) == correct / len(canary_seeds)
    assert server.value("vhserve_canary_agreement_ratio", **dataset) == 1
    assert server.value("vhserve_canary_samples", **dataset) == len(canary_seeds)
    assert server.value("vhserve_canary_expected_low_ratio", **dataset) == 0.4
    assert server.value("vhserve_canary_request_seconds_count", **dataset) == len(canary_seeds)
    assert time.time() - server.value("vhserve_canary_last_success_timestamp_seconds", **dataset) < 3600
