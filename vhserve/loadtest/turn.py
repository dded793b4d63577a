"""One turn: locust processes send a load to one endpoint, and their records are read as they come.

Owns the processes, their flags, their limit of time and their end. Does not know what is made of the records.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from profiles.error_text import last_line
from profiles.provenance import ROOT
from vhserve.child_processes import end
from vhserve.evaluation.results import Server
from vhserve.loadtest.errors import ClientFailed
from vhserve.loadtest.records import ClientSample, RecordReader, RequestRecord
from vhserve.loadtest.scrape import Scrape, Scraper
from vhserve.loadtest.workload import Workload

_START_LIMIT = 60.0
"""Seconds that starting locust may take."""

_LOCUSTFILE = Path(__file__).parent / "locustfile.py"


@dataclass(frozen=True)
class Job:
    """What to do in one turn.

    Attributes
    ----------
    load
        All processes' together; its model and seed are set.
    streams
        Of a closed loop; 0 for an open one.
    processes
        How many processes share the load.
    number
        Makes pictures and arrivals this turn's. Two endpoints that are compared get the same in one round.
    """

    server: Server
    load: Workload
    streams: int
    processes: int
    number: int


@dataclass
class Turn:
    """Records of a turn.

    Attributes
    ----------
    observed
        Measured requests, by when they were due; no warm-up.
    warmed
        How many requests were warm-up.
    samples
        How busy each sending process was.
    scrapes
        Readings of the server's metrics.
    since
        When measuring began, in seconds of `time.monotonic`.
    """

    observed: list[RequestRecord] = field(default_factory=list)
    warmed: int = 0
    samples: list[list[ClientSample]] = field(default_factory=list)
    scrapes: list[Scrape] = field(default_factory=list)
    since: float = 0.0


def run_turn(job: Job, folder: Path, show: Callable[[Turn], None]) -> Turn:
    """Send a load to its end.

    Parameters
    ----------
    folder
        Empty; gets records and logs.
    show
        Called now and then with what there is.

    Raises
    ------
    ClientFailed
    """
    turn = Turn(samples=[[] for _ in range(job.processes)])
    readers = [RecordReader(folder / f"records-{client}.jsonl") for client in range(job.processes)]
    scraper = Scraper(job.server.base_url)
    limit = _START_LIMIT + job.load.warm_up + job.load.duration + job.load.request_timeout + 30
    deadline = time.monotonic() + limit
    try:
        with _clients(job, folder) as processes:
            while any(process.poll() is None for process in processes):
                if time.monotonic() > deadline:
                    raise ClientFailed(
                        f"a client still ran after {limit:.0f} s", expected="its end by then", fix="lower the load"
                    )
                time.sleep(0.2)
                _collect(turn, readers)
                show(turn)
            codes = [process.returncode for process in processes]
    finally:
        turn.scrapes = scraper.stop()
    _collect(turn, readers)
    for client, code in enumerate(codes):
        if code:
            raise ClientFailed(
                f"client {client} ended with exit code {code}: {last_line(folder / f'client-{client}.log')}",
                expected="exit code 0",
                fix="see its words",
            )
    turn.observed.sort(key=lambda one: one.due)
    turn.since = turn.observed[0].due if turn.observed else 0.0
    return turn


@contextlib.contextmanager
def _clients(job: Job, folder: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    # LOCUST_ variables are flags of locust's, meant for other runs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for client in range(job.processes):
            with (folder / f"client-{client}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        _command(job, client, folder / f"records-{client}.jsonl"),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        cwd=folder,  # a locust.conf of the user's folder is meant for other runs
                        env=environment,
                        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
                    )
                )
        yield processes
    finally:
        for process in processes:
            end(process)


def _command(job: Job, client: int, records: Path) -> list[str]:
    load = job.load
    share = {
        "rate": load.rate / job.processes,
        "requests": _part(load.requests, client, job.processes),
        "max_in_flight": _part(load.max_in_flight, client, job.processes),
    }
    users = _part(job.streams, client, job.processes) if job.streams else 1
    flags = [
        *("--headless", "--users", str(users), "--spawn-rate", str(users), "--exit-code-on-error", "0"),
        *("--host", job.server.base_url, "--only-summary", "--loglevel", "WARNING"),
        *("--turn", str(job.number), "--client", str(client), "--records", str(records)),
    ]
    for name, value in load.model_copy(update=share).model_dump().items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags += [flag] if value else []
        elif value is not None:
            flags.append(f"{flag}={value}")
    return [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), *flags]


def _part(whole: int, number: int, parts: int) -> int:
    """Share of one of several processes; the shares add up."""
    return whole // parts + (number < whole % parts)


def _collect(turn: Turn, readers: list[RecordReader]) -> None:
    for reader, samples in zip(readers, turn.samples, strict=True):
        observations, more = reader.read()
        measured = [one for one in observations if not one.warm_up]
        turn.observed += measured
        turn.warmed += len(observations) - len(measured)
        samples += more
