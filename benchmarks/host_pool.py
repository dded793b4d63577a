"""Engine hosts that work on jobs at the same time, each of them replaced after an engine that did not answer.

What such an engine leaves behind, a spoilt CUDA context or a half-made process group, would fail every engine after it.
So an engine that fails where others were before is started once more, where none was.
Needs the tests' support folder on the path. Does not know what is asked nor what is right.
"""

import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path

from engine_host import EngineHost, EngineOutcome, Job


class HostPool:
    """Runs jobs in the order in which they come, `hosts` of them at once.

    Parameters
    ----------
    folder
        For the hosts' logs.
    limit
        Seconds that an engine has to start and to answer.
    module
        Whose `main` the hosts run, as of `EngineHost`.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], hosts: int, limit: float, module: str = "engine_host"
    ) -> None:
        self.folder, self.environment, self.limit, self.module = folder, dict(environment), limit, module
        self._hosts: dict[int, EngineHost] = {}
        """Of each thread, by its identity."""
        self._logs: list[Path] = []
        self._jobs: list[tuple[Job, Future[EngineOutcome]]] = []
        self._threads, self._lock, self._closed = ThreadPoolExecutor(hosts), threading.Lock(), False

    def submit(self, job: Job) -> "Future[EngineOutcome]":
        """An engine's outcome once it is there, a failure among them; an equal job is not done again."""
        for earlier, future in self._jobs:
            if earlier == job:
                return future
        future = self._threads.submit(self._run, job)
        self._jobs.append((job, future))
        return future

    def _run(self, job: Job) -> EngineOutcome:
        host = self._host()
        had_others = host.sent > 0
        try:
            outcome = host.do(job, self.limit)
        except AssertionError as error:  # the host has ended, or was
            outcome = EngineOutcome(failure=("EngineHostEnded", str(error)))
        if outcome.failure is None or self._closed:
            return outcome
        host.kill()
        with self._lock:
            del self._hosts[threading.get_ident()]
        return self._run(job) if had_others else outcome

    def _host(self) -> EngineHost:
        """This thread's."""
        own = threading.get_ident()
        with self._lock:
            if self._closed:
                raise CancelledError
            if own not in self._hosts:
                folder = self.folder / f"host-{len(self._logs)}"
                folder.mkdir()
                self._hosts[own] = EngineHost(folder, self.environment, self.module)
                self._logs.append(self._hosts[own].log)
            return self._hosts[own]

    def log(self, most: int = 400_000) -> bytes:
        """The ends of all hosts' logs, at most so many bytes together."""
        parts = [(log.parent.name, log.read_bytes()[-most // len(self._logs) :]) for log in self._logs]
        return b"".join(f"=== {name}\n".encode() + end + b"\n" for name, end in parts)

    def close(self) -> None:
        """End all hosts, whatever they do; jobs that were not begun never are."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            for host in self._hosts.values():
                host.kill()
        self._threads.shutdown()
