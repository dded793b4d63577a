"""Starts canary and shadow with an API server, and stops them with it.

Owns their lifecycle: an ASGI middleware, which gets the server's start-up and shutdown (the lifespan) and every
request. Knows vLLM's application state; not how either works.
"""

import asyncio
from typing import Any

from vllm.logger import init_logger

from profiles.pruning_plan import PruningPlan
from vhserve.compat.api_server import api_server_rank
from vhserve.evaluation.chat import sample_message
from vhserve.server.monitoring import queue_state
from vhserve.server.monitoring.canary import Canary
from vhserve.server.monitoring.in_process_client import InProcessClient
from vhserve.server.monitoring.reference import Reference
from vhserve.server.monitoring.request_mirror import RequestMirror
from vhserve.server.monitoring.settings import CanarySettings
from vhserve.server.monitoring.shadow import Shadow
from vhserve.server.settings import settings_of

logger = init_logger("vllm.vhserve")


class Monitoring:
    """ASGI middleware; `ServerSettings.monitoring` says what to run."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.tasks: list[asyncio.Task[None]] = []
        self.reference: Reference | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def watched_receive() -> Any:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.stop()
            return message

        async def watched_send(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self.start(scope["app"])

        await self.app(scope, watched_receive, watched_send)

    def start(self, app: Any) -> None:
        """Start what is set; the canary in the first API server only."""
        settings = settings_of(app).monitoring
        if settings.shadow is not None:
            self.reference = Reference(settings.shadow.url)
            shadow = Shadow(self.reference)
            self.app = RequestMirror(self.app, settings.shadow.fraction, shadow.offer)
            self._run("shadow", shadow.run_forever())
        if settings.canary is not None and api_server_rank(app.state.vllm_config) == 0:
            self._run("canary", _run_canary(settings.canary, app))

    async def stop(self) -> None:
        """Stop both, and wait until they have stopped."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.reference is not None:
            await self.reference.close()

    def _run(self, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=f"vhserve {name}")
        task.add_done_callback(_log_failure)
        self.tasks.append(task)


def _log_failure(task: "asyncio.Task[None]") -> None:
    """A defect in either must not reach users, but must be logged."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s ended: %s: %s", task.get_name(), type(error).__name__, error)


async def _run_canary(settings: CanarySettings, app: Any) -> None:
    dataset, questions = await asyncio.to_thread(_questions, settings)
    plan = settings_of(app).plan
    by_priority = app.state.vllm_config.scheduler_config.policy == "priority"
    canary = Canary(
        dataset,
        questions,
        ask=InProcessClient(app).ask,
        # With priority scheduling no user's request waits for the canary's; else it asks only while none waits.
        has_capacity=(lambda: True) if by_priority else queue_state.has_capacity,
        interval=settings.interval,
        expected_low=None if plan is None else _expected_low(plan, dataset),
    )
    await canary.run_forever()


def _questions(settings: CanarySettings) -> tuple[str, list[Any]]:
    """The data set's name, and its samples with their chat messages, so that pictures are encoded once."""
    from calibrate.datasets import open_dataset

    dataset = open_dataset(settings.dataset, samples=settings.samples, seed=0)
    dataset.announce(lambda line: logger.warning("%s", line))
    return dataset.name, [(sample, sample_message(sample)) for sample in dataset]


def _expected_low(plan: PruningPlan, dataset: str) -> float | None:
    """Low end of the accuracy interval that the plan records for a whole data set with pruning, 0 to 1."""
    for measured in plan.measured:
        if (measured.dataset, measured.family, measured.arm) == (dataset, "all", "pruned"):
            return measured.low
    return None
