"""The process in which an API server tries grammars out before its engine compiles them.

Owns that a trial ends: each is a fork of this process, which is killed after its time, takes bounded memory, and may
crash alone. Has one thread, so that forks are safe. Does not know what a grammar is, nor which are known already.
"""

import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final

from vhserve.compat.requests import grammar_trial

READY: Final = 0
"""Number of the answer that says that this process has started."""

AT_ONCE: Final = 2
"""Trials that run together; others wait."""

MEMORY: Final = 2 << 30
"""Bytes that a trial may allocate."""


@dataclass(frozen=True)
class Trial:
    """A trial that runs: the number of its request, its process, and when (monotonic) it is killed."""

    number: int
    process: int
    until: float


def main(requests: Connection, vllm_config: Any, seconds: float, token_seconds: float) -> None:
    """Answer `(number, SamplingParams)` by `(number, problem)`, None for none; `(number, None)` gives a request up.

    The first answer is to the number `READY`.
    """
    trial = grammar_trial(vllm_config, token_seconds)
    requests.send((READY, None))
    Trials(requests, trial, seconds).run()


class Trials:
    """Requests that wait and trials that run, in one loop, until the other side closes the connection."""

    def __init__(self, requests: Connection, trial: Callable[[Any], None], seconds: float) -> None:
        self.requests = requests
        self.trial = trial
        self.seconds = seconds
        self.waiting: deque[tuple[int, Any]] = deque()
        self.running: dict[Connection, Trial] = {}

    def run(self) -> None:
        while True:
            until = min((trial.until for trial in self.running.values()), default=None)
            left = None if until is None else max(0.0, until - time.monotonic())
            for ready in wait([self.requests, *self.running], left):
                if ready is not self.requests:
                    self._read_result(ready)  # type: ignore[arg-type]
                elif not self._read_request():
                    return
            for pipe, trial in list(self.running.items()):
                if trial.until <= time.monotonic():
                    self._end(pipe, f"it takes more than {self.seconds:g} s to compile (--max-grammar-seconds)")
            while self.waiting and len(self.running) < AT_ONCE:
                self._start(*self.waiting.popleft())

    def _read_request(self) -> bool:
        """Take a request in, or give one up; whether the other side is still there."""
        try:
            number, params = self.requests.recv()
        except EOFError:
            for pipe in list(self.running):
                self._end(pipe)
            return False
        if params is not None:
            self.waiting.append((number, params))
            return True
        self.waiting = deque(one for one in self.waiting if one[0] != number)
        for pipe, trial in list(self.running.items()):
            if trial.number == number:
                self._end(pipe)
        return True

    def _start(self, number: int, params: Any) -> None:
        reader, writer = Pipe(duplex=False)
        process = os.fork()
        if process == 0:
            try:
                _limit_memory()
                writer.send(_problem(self.trial, params))
            finally:
                os._exit(0)
        writer.close()
        self.running[reader] = Trial(number, process, time.monotonic() + self.seconds)

    def _read_result(self, pipe: Connection) -> None:
        try:
            problem = pipe.recv()
        except EOFError:
            problem = f"it takes more than {MEMORY >> 30} GiB, or crashes the compiler"
        self._end(pipe, problem)

    def _end(self, pipe: Connection, *problem: str | None) -> None:
        """End a trial's process; a problem, or None for none, is the answer to its request."""
        trial = self.running.pop(pipe)
        pipe.close()
        with suppress(ProcessLookupError):
            os.kill(trial.process, signal.SIGKILL)
        os.waitpid(trial.process, 0)
        for one in problem:
            self.requests.send((trial.number, one))


def _problem(trial: Callable[[Any], None], params: Any) -> str | None:
    try:
        trial(params)
    except MemoryError:
        return f"it takes more than {MEMORY >> 30} GiB to compile"
    except Exception as error:
        return " ".join(str(error).split())[:300] or type(error).__name__
    return None


def _limit_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
