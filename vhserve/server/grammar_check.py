"""Which grammars (schemas, regular expressions, choices) an API server hands to its engine: those that compile in time.

Owns the middleware, the process that tries new grammars out (`grammar_worker`), and what it remembers of them. The
engine compiles in threads that nothing can end. Does not know HTTP; which fields may be how large is in
`parameter_limits`.
"""

import asyncio
import hashlib
import itertools
import math
import multiprocessing
import pickle
import time
from collections import OrderedDict
from dataclasses import dataclass
from http import HTTPStatus
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from vhserve.compat.requests import before_adding_requests, refuse_request
from vhserve.server import grammar_worker
from vhserve.server.drain import HEALTH
from vhserve.server.engine_silence import STUCK_SECONDS, EngineSilence
from vhserve.server.error_responses import send_error
from vhserve.server.settings import settings_of

REMEMBERED: Final = 1024
"""Grammars whose outcome is remembered, those used last."""


REFUSED_SECONDS: Final = 60.0
"""A refusal is remembered for so long: on a machine that was busy, the next trial may be quicker."""

_ENDED: Final = "the process that compiles ended"


class Outcome(NamedTuple):
    """Of a trial: its problem, if any, and until when (monotonic) it counts."""

    problem: str | None
    until: float


@dataclass
class SharedTrial:
    """A trial that runs, and how many requests wait for it."""

    task: "asyncio.Task[str | None]"
    waiting: int = 0


class GrammarCheck:
    """ASGI middleware; sets its check up on the first ASGI scope, which is the lifespan, as `PlanMetrics` does.

    It answers `/health` where the engine is stuck in one all the same.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.silence: EngineSilence | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.silence is None and "app" in scope:
            self.silence = self._set_up(scope["app"])
        if self.silence is not None and _asks_for_health(scope) and await self.silence.is_stuck():
            stuck = f"the engine has not answered for {STUCK_SECONDS:.0f} s while it generates structured outputs"
            await send_error(send, HTTPStatus.SERVICE_UNAVAILABLE, stuck)
            return
        await self.app(scope, receive, send)

    @staticmethod
    def _set_up(app: Any) -> EngineSilence:
        client, settings = app.state.engine_client, settings_of(app)
        silence = EngineSilence(client)
        trials = GrammarTrials(app.state.vllm_config, settings.max_grammar_seconds, settings.max_grammar_token_seconds)

        async def check(request: str, params: Any) -> None:
            if is_structured(params):
                await trials.check(params)
                silence.ask(request)

        before_adding_requests(client, check)
        return silence


def is_structured(params: Any) -> bool:
    """Whether a request's parameters ask for a structured output."""
    constraint = getattr(params, "structured_outputs", None)
    return constraint is not None and not constraint.all_constraints_none()


def _asks_for_health(scope: Any) -> bool:
    return scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) in HEALTH


class GrammarTrials:
    """Tries each grammar once; its process starts with the first one."""

    def __init__(self, vllm_config: Any, seconds: float, token_seconds: float) -> None:
        self.vllm_config = vllm_config
        self.seconds = seconds
        self.token_seconds = token_seconds
        self.worker: asyncio.Task[Connection] | None = None
        self.numbers = itertools.count(1)
        self.answers: dict[int, asyncio.Future[str | None]] = {}
        self.running: dict[bytes, SharedTrial] = {}
        self.outcomes: OrderedDict[bytes, Outcome] = OrderedDict()

    async def check(self, params: Any) -> None:
        """Let a request's parameters, which ask for a structured output, pass, or refuse them with status 400."""
        key = hashlib.sha256(pickle.dumps(params.structured_outputs)).digest()
        known = self.outcomes.get(key)
        if known is None or known.until < time.monotonic():
            problem = await self._try_once(key, params)
            known = Outcome(problem, time.monotonic() + (REFUSED_SECONDS if problem else math.inf))
        self.outcomes[key] = known
        self.outcomes.move_to_end(key)
        while len(self.outcomes) > REMEMBERED:
            self.outcomes.popitem(last=False)
        if known.problem is not None:
            refuse_request(f"structured output refused: {known.problem}")

    async def _try_once(self, key: bytes, params: Any) -> str | None:
        """Outcome of one trial for all requests that wait for it; it ends when none does any more."""
        shared = self.running.get(key)
        if shared is None:
            shared = self.running[key] = SharedTrial(asyncio.create_task(self._try(params)))
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if self.running.get(key) is shared and (shared.task.done() or not shared.waiting):
                del self.running[key]
                shared.task.cancel()

    async def _try(self, params: Any) -> str | None:
        if self.worker is None:
            self.worker = asyncio.create_task(self._start_worker())
        number = next(self.numbers)
        try:
            worker = await asyncio.shield(self.worker)
            answer = self._expect(number)
            worker.send((number, params))
            try:
                return await answer
            except asyncio.CancelledError:
                worker.send((number, None))
                raise
        except OSError:
            return _ENDED
        finally:
            self.answers.pop(number, None)

    async def _start_worker(self) -> Connection:
        ours, theirs = multiprocessing.Pipe()
        given = (theirs, self.vllm_config, self.seconds, self.token_seconds)
        process = multiprocessing.get_context("spawn").Process(
            target=grammar_worker.main, args=given, name="Grammars", daemon=True
        )
        await asyncio.to_thread(process.start)
        theirs.close()
        ready = self._expect(grammar_worker.READY)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read_answers, ours)
        await ready  # nothing is sent to it before: it would not be read, and the event loop would wait for that
        return ours

    def _expect(self, number: int) -> "asyncio.Future[str | None]":
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.answers[number] = answer
        return answer

    def _read_answers(self, worker: Connection) -> None:
        try:
            while worker.poll():
                number, problem = worker.recv()
                self._answer(number, problem)
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(worker.fileno())
            worker.close()
            self.worker = None
            for number in list(self.answers):
                self._answer(number, _ENDED)

    def _answer(self, number: int, problem: str | None) -> None:
        answer = self.answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(problem)
