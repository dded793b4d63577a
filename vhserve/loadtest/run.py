"""One load test: checks first, then the turns, then the files.

Owns the order, so that nothing is sent when the end could not be written. Sends, counts and draws elsewhere.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from profiles.files import check_output, write_atomically
from vhserve.child_processes import ending_on_signals
from vhserve.evaluation import provenance
from vhserve.evaluation.address import check_base_url
from vhserve.evaluation.keys import api_key
from vhserve.evaluation.results import Server, save
from vhserve.evaluation.server import identify
from vhserve.loadtest.client_load import client_load
from vhserve.loadtest.comparison import order, ratios
from vhserve.loadtest.conditions import check, parse_conditions
from vhserve.loadtest.errors import BadLoad, LocustMissing, SameEndpoint
from vhserve.loadtest.figures import errors, figures
from vhserve.loadtest.options import LoadtestOptions
from vhserve.loadtest.progress import turn_progress
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.results import SINGLE_ENDPOINT, EndpointResult, LoadFigures, LoadTest
from vhserve.loadtest.scrape import server_load
from vhserve.loadtest.slo import parse_slo
from vhserve.loadtest.timeline import timeline
from vhserve.loadtest.turn import Job, Turn, run_turn
from vhserve.loadtest.workload import Workload


@dataclass
class EndpointTurns:
    """One of the endpoints, and its turns so far."""

    name: str
    server: Server
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True)
class LoadTestRun:
    """The document, and the measured requests behind it: of every turn, by the endpoint's name."""

    document: LoadTest
    requests: dict[str, list[list[RequestRecord]]]


def loadtest(options: LoadtestOptions) -> LoadTestRun:
    """Carry out what the options of `vhserve loadtest` ask for, and write the files.

    Raises
    ------
    profiles.errors.UserError
        Whatever the user got wrong: addresses, expressions, files, keys.
    """
    slo = parse_slo(options.slo)
    limits = parse_conditions(options.fail_if, options.compare)
    urls = _urls(options.urls, options.compare)
    _check_load(options)
    results: str = LoadTest.model_fields["format"].default
    for path, kind in ((options.out, results), (options.csv, None), (options.html, None)):
        if path is not None:
            check_output(path, document=kind)
    key = api_key(options.api_key_env)
    servers = [identify(url, options.model, key) for url in urls]
    started, clock = provenance.now(), time.monotonic()
    names = ["A", "B"] if options.compare else [SINGLE_ENDPOINT]
    endpoints = [EndpointTurns(name, server) for name, server in zip(names, servers, strict=True)]
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    with ending_on_signals():
        _run_turns(endpoints, options, seed)

    measured = [_measured(one, slo) for one in endpoints]
    compared = ratios(measured[0].figures, measured[1].figures, _rounds(measured)) if options.compare else []
    document = LoadTest(
        arguments=options.model_dump(mode="json", include=set(LoadtestOptions.model_fields)),
        seed=seed,
        arrivals=f"closed loop, {options.concurrency} streams"
        if options.concurrency
        else f"Poisson, {options.rate:g}/s",
        slo=slo,
        endpoints=measured,
        ratios=compared,
        conditions=check(limits, measured, compared),
        versions=provenance.versions(),
        commit=provenance.commit(),
        started=started,
        seconds=time.monotonic() - clock,
    )
    done = LoadTestRun(document, {one.name: [turn.observed for turn in one.turns] for one in endpoints})
    _write(done, options)
    return done


def _urls(urls: Sequence[str], compare: bool) -> list[str]:
    checked = [check_base_url(url) for url in urls]
    if len(checked) != 1 + compare:
        raise BadLoad(
            f"{len(checked)} addresses are given {'with' if compare else 'without'} --compare",
            expected="one address, or two with --compare",
            fix="give vhserve loadtest URL, or vhserve loadtest --compare URL_A URL_B",
        )
    if compare and checked[0] == checked[1]:
        raise SameEndpoint(
            f"both addresses are {checked[0]}",
            expected="two endpoints",
            fix="start the second server on another port and give its address",
        )
    return checked


def _check_load(options: LoadtestOptions) -> None:
    if find_spec("locust") is None:
        raise LocustMissing("locust is not installed", expected="locust 2.40 or newer", fix="install vhserve[loadtest]")
    if options.concurrency is not None and "rate" in options.model_fields_set:
        raise BadLoad(
            "--rate and --concurrency are both given",
            expected="an open loop (--rate) or a closed one (--concurrency)",
            fix="leave one of them out",
        )
    if options.concurrency is None and options.rate == 0:
        raise BadLoad("--rate is 0", expected="requests per second", fix="give a rate, or --concurrency instead")
    _check_effects(options)
    streams = options.concurrency or options.clients
    least = min(streams, options.max_in_flight, options.requests)
    if least < options.clients:
        raise BadLoad(
            f"--clients {options.clients} has nothing for some of them to do",
            expected="at most as many as --concurrency, --max-in-flight and --requests",
            fix="lower it",
        )


def _check_effects(options: LoadtestOptions) -> None:
    """Refuse options that are given, but change nothing of what is sent beside the others."""
    without = (
        ("rounds", not options.compare, "--compare"),
        ("pool", not options.repeated_share, "--repeated-share above 0"),
        ("repeated_share", not options.image_share, "--image-share above 0"),
        ("image_size", not options.image_share, "--image-share above 0"),
    )
    for name, idle, needed in without:
        if idle and name in options.model_fields_set and getattr(options, name):
            flag = name.replace("_", "-")
            raise BadLoad(
                f"--{flag} changes nothing without {needed}", expected=f"{needed} with it", fix=f"leave --{flag} out"
            )


def _run_turns(endpoints: Sequence[EndpointTurns], options: LoadtestOptions, seed: int) -> None:
    turns = order(len(endpoints), options.rounds)
    seconds = options.warm_up + options.duration
    values = {name: getattr(options, name) for name in Workload.model_fields}
    if options.concurrency is not None:
        values |= {"rate": 0.0, "max_in_flight": options.concurrency}
    with (
        tempfile.TemporaryDirectory(prefix="vhserve-loadtest-") as scratch,
        turn_progress(len(turns) * seconds) as progress,
    ):
        for number, at in enumerate(turns):
            endpoint = endpoints[at]
            load = Workload(**{**values, "model": endpoint.server.model, "seed": seed})
            # Both turns of a round send the same; no endpoint sees the same picture twice.
            job = Job(endpoint.server, load, options.concurrency or 0, options.clients, number // len(endpoints))
            folder = Path(scratch) / str(number)
            folder.mkdir()
            progress.begin(f"{endpoint.name}, turn {number + 1} of {len(turns)}", seconds)
            endpoint.turns.append(run_turn(job, folder, progress.show))
            progress.end()


def _measured(endpoint: EndpointTurns, slo: dict[str, float]) -> EndpointResult:
    turns = [turn.observed for turn in endpoint.turns]
    seen = [one for turn in turns for one in turn]
    kinds = {one.kind for one in seen}
    return EndpointResult(
        name=endpoint.name,
        server=endpoint.server,
        figures=figures(turns, slo),
        kinds={
            kind: figures([[one for one in turn if one.kind == kind] for turn in turns], slo) for kind in sorted(kinds)
        },
        turns=[figures([turn], slo) for turn in turns],
        errors=errors(seen),
        server_load=server_load([turn.scrapes for turn in endpoint.turns], [turn.since for turn in endpoint.turns]),
        client=client_load(endpoint.turns),
        timeline=[second for number, turn in enumerate(endpoint.turns) for second in timeline(turn, number)],
    )


def _rounds(measured: Sequence[EndpointResult]) -> list[tuple[LoadFigures, LoadFigures]]:
    return list(zip(measured[0].turns, measured[1].turns, strict=True))


def _write(done: LoadTestRun, options: LoadtestOptions) -> None:
    if options.out is not None:
        save(done.document, options.out)
    if options.csv is not None:
        from vhserve.loadtest.request_csv import csv_text

        write_atomically(options.csv, csv_text(done.requests))
    if options.html is not None:
        from vhserve.loadtest.page import render

        write_atomically(options.html, render(done.document, done.requests))
