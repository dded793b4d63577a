"""The locustfile: users that send the load and record every request.

`vhserve loadtest` starts it; it is also a locustfile of its own:

    locust -f vhserve/loadtest/locustfile.py --host http://127.0.0.1:8000/v1 --model demo -u 1 --rate 2
    locust -f vhserve/loadtest/locustfile.py --host http://127.0.0.1:8000/v1 --model demo -u 8 --rate 0

Each user of an open loop sends `--rate` requests per second (independent Poisson streams add up to one of their sum);
each user of a closed loop is one stream. locust's own statistics get `ttft` and `e2e`. Does no arithmetic.
"""

import itertools
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, TextIO

import gevent
import numpy as np
from gevent.pool import Pool
from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner, MasterRunner, WorkerRunner
from pydantic import ValidationError

from vhserve.loadtest.payloads import Payload, Payloads
from vhserve.loadtest.records import ClientSample, RequestRecord
from vhserve.loadtest.schedule import Ticket, Tickets
from vhserve.loadtest.stream import StreamClient
from vhserve.loadtest.workload import Workload

AFTER_FAILURE = 0.1
"""Seconds that a stream of a closed loop waits after a failure, lest it should send without pause when refused."""

SAMPLE_EVERY = 0.25
"""Seconds between two looks at the process's own CPU."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _flags(parser: LocustArgumentParser, **_: Any) -> None:
    for name, field in Workload.model_fields.items():
        flag, words = f"--{name.replace('_', '-')}", field.description
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", help=words)
        else:
            kind = next(kind for kind in (int, float, str) if kind in _types(field.annotation))
            parser.add_argument(flag, type=kind, default=field.default, help=words)
    # No Path: locust sends the flags to its workers, as msgpack.
    parser.add_argument("--records", default=None, help="file that gets a line for every request")
    parser.add_argument("--turn", type=int, default=0, help="number that makes arrivals, pictures and words this run's")
    parser.add_argument("--client", type=int, default=0, help="the same for one of several processes")


def _types(annotation: Any) -> set[Any]:
    """The types that an annotation is made of: members of a union, and what bounds are set for."""
    parts = getattr(annotation, "__args__", ())
    return {annotation}.union(*map(_types, parts)) if parts else {annotation}


class ClientProcess:
    """What the users of a process share: the schedule, the endpoint, the file of records, and the end."""

    def __init__(self, environment: Environment, options: Namespace) -> None:
        values = {name: getattr(options, name) for name in Workload.model_fields}
        values["seed"] = int.from_bytes(os.urandom(4)) if values["seed"] is None else values["seed"]
        self.load = Workload.model_validate(values)
        self.environment = environment
        # Workers get the same flags; what they send must differ all the same, and so must the files they write.
        worker = environment.runner.worker_index if isinstance(environment.runner, WorkerRunner) else None
        self._place = (options.turn, options.client) if worker is None else (options.turn, options.client, worker)
        records = f"{options.records}.{worker}" if options.records and worker is not None else options.records
        self._payloads = Payloads(self.load, self._place)
        self._endpoint = StreamClient(
            str(environment.host),
            os.environ.get(self.load.api_key_env),
            self.load.max_in_flight,
            self.load.request_timeout,
        )
        self._tickets = Tickets(self.load)
        self._file: TextIO | None = open(records, "w", buffering=1) if records else None  # noqa: SIM115
        self._users, self._over, self._user_numbers = 0, 0, itertools.count()
        self.in_flight = 0
        self.start = time.monotonic()
        self._sampler = gevent.spawn(self._sample)

    def arrivals(self, since: float) -> Iterator[Ticket]:
        """The tickets of the open loop of a user that joined at `since`: users start one after the other."""
        # A number of its own for each user: two users with the same arrivals would send in pairs.
        seed = [self.load.seed or 0, 3, *self._place, next(self._user_numbers)]
        return self._tickets.poisson(np.random.default_rng(seed), since=since)

    def next_now(self) -> Ticket | None:
        """A ticket for a stream that is free."""
        return self._tickets.at(time.monotonic() - self.start)

    def payload(self, ticket: Ticket) -> Payload:
        """What to send for a ticket."""
        return self._payloads.make(ticket.number)

    def send(self, ticket: Ticket, payload: Payload, due: float) -> bool:
        """Send a request due at a time of `time.monotonic`, record its outcome, and return whether it did not fail."""
        seen = RequestRecord(ticket.number, payload.kind, ticket.warm_up, due)
        if self.in_flight >= self.load.max_in_flight:
            seen.error = "not sent"
            seen.detail = f"{self.in_flight} requests were under way, as many as --max-in-flight"
            self._note(seen)
            return False
        self.in_flight += 1
        try:
            self._endpoint.ask(payload, seen, None if self.load.free_length else self.load.output_tokens)
        finally:
            self.in_flight -= 1
        self._note(seen)
        return seen.outcome != "failed"

    def _note(self, seen: RequestRecord) -> None:
        if self._file is not None:
            self._file.write(seen.line())
        failure = RuntimeError(seen.error) if seen.outcome == "failed" else None
        for metric, seconds in (("ttft", seen.arrivals[:1]), ("e2e", seen.arrivals[-1:])):
            if seen.outcome == "ok" or (failure is not None and metric == "e2e"):
                self.environment.events.request.fire(  # type: ignore[no-untyped-call]
                    request_type=metric,
                    name=seen.kind,
                    response_time=1000 * seconds[0] if seconds else 0,
                    response_length=seen.tokens,
                    exception=failure,
                    context={},
                )

    def joined(self) -> float:
        """A user starts; seconds since the first one did, with which the schedule begins.

        Exactly 0 for the first, so that its arrivals, and which is the last before the end, are the seed's alone.
        """
        now = time.monotonic()
        if not self._users:
            self.start = now
        self._users += 1
        return now - self.start

    def left(self) -> None:
        """A user has nothing more to do; with the last one a headless run ends."""
        self._over += 1
        runner = self.environment.runner
        if not isinstance(runner, LocalRunner) or self.environment.web_ui is not None:
            return
        if self._over >= max(self._users, runner.target_user_count):
            gevent.spawn(runner.quit)

    def close(self) -> None:
        """Write what is left and close the file."""
        self._sampler.kill()
        self._endpoint.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _sample(self) -> None:
        spent, wall = time.process_time(), time.monotonic()
        while True:
            gevent.sleep(SAMPLE_EVERY)
            now_spent, now = time.process_time(), time.monotonic()
            late = max(0.0, now - wall - SAMPLE_EVERY)
            sample = ClientSample(now, (now_spent - spent) / (now - wall), late, self.in_flight)
            spent, wall = now_spent, now
            if self._file is not None:
                self._file.write(sample.line())


_processes: dict[int, ClientProcess] = {}


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _start(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, MasterRunner):
        return  # which sends nothing: its workers do
    try:
        process = ClientProcess(environment, environment.parsed_options or Namespace())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        sys.exit(f"--{str(first['loc'][0]).replace('_', '-')} {first['input']!r}: {first['msg']}")
    if process.load.model is None:
        sys.exit("--model is not given; expected the name of a model that the endpoint serves")
    _processes[id(environment)] = process


@events.test_stop.add_listener  # type: ignore[untyped-decorator]
def _stop(environment: Environment, **_: Any) -> None:
    process = _processes.pop(id(environment), None)
    if process is not None:
        process.close()


class VisionUser(User):
    """One stream of a closed loop, or one source of an open one."""

    def on_start(self) -> None:
        """Join the run."""
        self.process = _processes[id(self.environment)]
        self._since = self.process.joined()
        self._sending = Pool()

    def on_stop(self) -> None:
        """Drop what is under way: only a run that is stopped from outside has any."""
        self._sending.kill()

    @task
    def load(self) -> None:
        """Send until the run's bounds are reached."""
        if self.process.load.rate:
            self._open_loop()
        else:
            self._closed_loop()
        self.process.left()
        raise StopUser

    def _open_loop(self) -> None:
        process = self.process
        for ticket in process.arrivals(self._since):
            payload = process.payload(ticket)  # made before it is due, in the time that there is to wait anyway
            due = process.start + ticket.due
            gevent.sleep(max(0.0, due - time.monotonic()))
            self._sending.spawn(process.send, ticket, payload, due)
        self._sending.join()

    def _closed_loop(self) -> None:
        process = self.process
        while (ticket := process.next_now()) is not None:
            payload = process.payload(ticket)
            if not process.send(ticket, payload, time.monotonic()):
                gevent.sleep(AFTER_FAILURE)
