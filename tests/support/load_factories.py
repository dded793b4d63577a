"""Factories of load tests: requests drawn at random, and the documents that the shipped code makes of them."""

import random

from vhserve.evaluation.results import Server
from vhserve.loadtest.client_load import client_load
from vhserve.loadtest.comparison import ratios
from vhserve.loadtest.conditions import check, parse_conditions
from vhserve.loadtest.figures import errors, figures
from vhserve.loadtest.records import ClientSample, RequestRecord
from vhserve.loadtest.results import SINGLE_ENDPOINT, EndpointResult, LoadTest
from vhserve.loadtest.scrape import Scrape, server_load
from vhserve.loadtest.timeline import timeline
from vhserve.loadtest.turn import Turn

SLO = {"ttft": 0.5, "tpot": 0.05}


def turn(rng: random.Random, start: float, slower: float, succeed: bool) -> Turn:
    """Twenty seconds of four requests a second."""
    seen = []
    for number in range(80):
        due = start + number / 4
        first = slower * rng.uniform(0.05, 0.2)
        arrivals = [first + slower * 0.02 * token for token in range(32)]
        failed = not succeed or rng.random() < 0.03
        seen.append(
            RequestRecord(
                number,
                rng.choice(["image", "repeated", "text"]),
                False,
                due,
                due + 0.001,
                [] if failed else arrivals,
                0 if failed else 32,
                0 if failed else 100,
                "failed" if failed else "ok",
                "http 503" if failed else None,
                "<b>bad</b> words & more" if failed else None,
            )
        )
    samples = [[ClientSample(start + step / 4, 0.9 if slower > 1 else 0.1, 0.001, 2) for step in range(80)]]
    scrapes = [
        Scrape(start + step, {"kv_use": rng.uniform(0, 0.5), "running": 3, "waiting": step % 4, "preemptions": step})
        for step in range(20)
    ]
    return Turn(seen, 5, samples, scrapes, start)


def load_test(endpoints: int, *, succeed: bool = True) -> tuple[LoadTest, dict[str, list[list[RequestRecord]]]]:
    """A document of one endpoint or two, and its requests."""
    rng = random.Random(11)
    names = [SINGLE_ENDPOINT] if endpoints == 1 else ["A", "B"]
    measured, requests = [], {}
    for name in names:
        slower = 1.5 if name == "B" else 1.0
        turns = [turn(rng, 100.0 * number, slower, succeed) for number in range(endpoints)]
        seen = [one.observed for one in turns]
        requests[name] = seen
        everything = [one for each in seen for one in each]
        measured.append(
            EndpointResult(
                name=name,
                server=Server(base_url=f"http://server-{name}/v1", model="<b>bad</b>"),
                figures=figures(seen, SLO),
                kinds={
                    kind: figures([[one for one in each if one.kind == kind] for each in seen], SLO)
                    for kind in ("image", "repeated", "text")
                },
                turns=[figures([each], SLO) for each in seen],
                errors=errors(everything),
                server_load=server_load([one.scrapes for one in turns], [one.since for one in turns]),
                client=client_load(turns),
                timeline=[second for number, one in enumerate(turns) for second in timeline(one, number)],
            )
        )
    compared = []
    if endpoints == 2:
        rounds = list(zip(measured[0].turns, measured[1].turns, strict=True))
        compared = ratios(measured[0].figures, measured[1].figures, rounds)
    document = LoadTest(
        arguments={"rate": 4.0, "model": "<b>bad</b>"},
        seed=1,
        arrivals="Poisson, 4 requests/s",
        slo=SLO,
        endpoints=measured,
        ratios=compared,
        conditions=check(parse_conditions(["p99_ttft>0.5", "preemptions>5"], endpoints == 2), measured, compared),
        versions={"vhserve": "0"},
        commit=None,
        started="2026-01-01T00:00:00+00:00",
        seconds=60.0,
    )
    return document, requests
