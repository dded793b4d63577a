"""Every expression of deploy/ against a live server: its words are in the scrape, and a real Prometheus answers it.

One server, one Prometheus and about a minute of load for all of it.
"""

import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import expressions
import live
import psutil
import pytest
from expressions import ROOT, Expression
from tools import run, tool

pytestmark = [pytest.mark.long, pytest.mark.vllm, pytest.mark.timeout(900)]

PICTURE = ROOT / "docs" / "images" / "dashboard.png"
LOAD_SECONDS = 75.0


@dataclass
class Watched:
    """What there is after the load: the server's port, a scrape, Prometheus, and when the load began and ended."""

    port: int
    scrape: str
    prometheus: live.Prometheus
    begun: float
    ended: float


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    tool("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    with live.server(folder) as port, live.prometheus(folder, port) as prometheus:
        begun = time.time()
        with live.load(port) as statuses:
            time.sleep(LOAD_SECONDS)
            scrape = live.get(f"http://127.0.0.1:{port}/metrics")
            ended = time.time()
        assert {200, 400} == set(statuses)
        yield Watched(port, scrape, prometheus, begun, ended)


def test_every_name_label_and_bound_is_in_a_real_scrape(watched: Watched) -> None:
    from vocabulary import TARGET, Vocabulary

    known = Vocabulary.of_scrape(watched.scrape, TARGET | {"track"})
    # Rules in order: each may use what those before it record.
    for rule in expressions.rules():
        assert known.problems(rule.text) == [], rule
        if rule.record is not None:
            known.add(rule.record, known.labels(rule.text) | rule.labels)
    for one in [*expressions.queries(), *expressions.triggers()]:
        assert known.problems(one.text) == [], one


def test_promtool_finds_nothing_wrong_with_our_metrics(watched: Watched) -> None:
    lines = [line for line in watched.scrape.splitlines(keepends=True) if "vhserve_" in line and "_created" not in line]
    assert len(lines) > 50
    assert run("promtool", "check", "metrics", given="".join(lines)) == ""


def test_health_is_scraped_as_up(watched: Watched) -> None:
    assert {(one["metric"]["job"], one["value"][1]) for one in watched.prometheus.now("up")} == {
        ("vhserve", "1"),
        ("vhserve-health", "1"),
    }


def test_every_rule_is_evaluated_without_error(watched: Watched) -> None:
    groups = watched.prometheus.api("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(expressions.rules())
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    # The reference answers nonsense, so its alert may fire once fifty answers have differed; nothing else may.
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing <= {"VhserveShadowDisagreement"}


@pytest.mark.parametrize("rule", expressions.rules(), ids=str)
def test_every_rule_s_expression_is_answered(watched: Watched, rule: Expression) -> None:
    found = watched.prometheus.now(rule.text)  # fails unless Prometheus answers "success"
    if rule.record is not None:
        assert found
        assert watched.prometheus.now(rule.record)


@pytest.mark.parametrize("query", [*expressions.queries(), *expressions.triggers()], ids=str)
def test_every_query_returns_data(watched: Watched, query: Expression) -> None:
    found = watched.prometheus.over(query.text, watched.begun, watched.ended, 1)
    values = [float(value) for series in found for _, value in series["values"]]
    assert [value for value in values if not math.isnan(value)], query.text


def test_the_panels_can_be_drawn(watched: Watched, tmp_path: Path) -> None:
    """The picture of the docs; written there where it is missing."""
    from drawing import draw

    drawn = []
    for panel in expressions.panels():
        answers = []
        for target in panel["targets"]:
            text = expressions.in_prometheus(target["expr"])
            found = watched.prometheus.over(text, watched.begun, watched.ended, 1)
            answers.append((target.get("legendFormat", ""), found))
        drawn.append((panel, answers))
    path = tmp_path / "dashboard.png" if PICTURE.exists() else PICTURE
    draw(drawn, path)
    assert path.stat().st_size > 20_000


def test_a_killed_engine_raises_an_alert(watched: Watched) -> None:  # the last test: it ends the server
    (server,) = [child for child in psutil.Process().children() if str(watched.port) in child.cmdline()]
    (engine,) = [child for child in server.children(recursive=True) if "EngineCor" in child.name()]
    engine.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        raised = {one["metric"]["alertname"] for one in watched.prometheus.now("ALERTS")}
        if raised & {"VhserveDown", "VhserveEngineDead"}:
            return
        time.sleep(1)
    pytest.fail(f"no alert of it: {raised}")
