"""Processes that a command starts: a step that runs to its end, and a server that lives as long as a `with` block.

Owns their logs and their end: whatever happens, no process outlives its block. Knows no commands.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import httpx

from profiles.error_text import last_line
from profiles.files import note_written
from vhserve.errors import ServerNotReady, StepFailed

VHSERVE = (sys.executable, "-m", "vhserve.cli")

_PROGRESS = re.compile(r" \d+/\d+, ")

_GRACE = 20.0
"""Seconds a server gets to end after SIGTERM."""


def run_step(
    name: str,
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    limit: float,
    show: Callable[[str], None] | None = None,
) -> None:
    """Run a command to its end, its output in a log.

    Parameters
    ----------
    show
        Called with every line of progress that the log gets (`calibrate.runs.progress`), a second late at most.

    Raises
    ------
    StepFailed
        When it exits with an error, or runs longer than `limit` seconds.
    """
    with _process(command, log, environment) as process:
        code, deadline, shown = None, time.monotonic() + limit, ""
        while code is None:
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"step {name} ran longer than {limit:.0f} s", expected="an end by then", fix=f"read its log {log}"
                )
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=min(1.0, limit))
            if show is not None and (line := last_line(log)) != shown and _PROGRESS.search(line):
                show(line)
                shown = line
    if code != 0:
        raise StepFailed(
            f"step {name} ended with {_ending(code)}: {last_line(log)}",
            expected="exit code 0",
            fix=f"read its log {log}",
        )


@contextlib.contextmanager
def serving(
    name: str, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str], limit: float
) -> Iterator[float]:
    """Run a server on a loopback port until the block ends; yields the seconds it took to be ready.

    Raises
    ------
    ServerNotReady
        When it ends while starting, or does not answer `/health` within `limit` seconds.
    """
    started = time.perf_counter()
    with _process(command, log, environment) as process:
        # Loopback: no proxy, and no certificates, which take a while to load.
        with httpx.Client(timeout=5.0, trust_env=False, verify=False) as client:
            while not _healthy(client, port):
                code = _exit_code(process.pid)
                if code is not None:
                    raise ServerNotReady(
                        f"server {name} ended with {_ending(code)} while starting: {last_line(log)}",
                        expected="a server that becomes ready",
                        fix=f"read its log {log}",
                    )
                if time.perf_counter() - started > limit:
                    raise ServerNotReady(
                        f"server {name} was not ready after {limit:.0f} s",
                        expected="ready by then",
                        fix=f"read its log {log}",
                    )
                time.sleep(0.5)
        yield time.perf_counter() - started


@contextlib.contextmanager
def _process(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    note_written(log)
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the other one in order.
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process started in a session of its own, and with it every process that it started.

    SIGTERM first, to the process itself, as an operator would; what is left after a time is killed.
    """
    try:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGTERM)  # not `terminate`, which would reap a process that has ended
            deadline = time.monotonic() + _GRACE
            while _exit_code(process.pid) is None and time.monotonic() < deadline:
                time.sleep(0.1)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _exit_code(pid: int) -> int | None:
    """Exit code of a child that has ended, negative after a signal; the child is not reaped.

    Until it is reaped, no other process can get its number or its group, so the group can still be ended safely.
    """
    state = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if state is None:
        return None
    return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status


def _healthy(client: httpx.Client, port: int) -> bool:
    try:
        return client.get(f"http://127.0.0.1:{port}/health").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """A loopback port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, as Ctrl-C does, so that every block above ends its process."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
