"""`vhserve loadtest` as a user starts it, locust included, against endpoints whose timing and failures are known."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from scripted_endpoint import endpoint

from vhserve.cli import main
from vhserve.loadtest.results import LoadTest

LOCUSTFILE = Path(__file__).parents[3] / "vhserve" / "loadtest" / "locustfile.py"
SHORT = ["--warm-up", "0.5", "--duration", "2.5", "--image-size", "32", "--output-tokens", "4"]


def read(path: Path) -> LoadTest:
    return LoadTest.model_validate_json(path.read_text(), strict=True)


def picture(request) -> str:
    return request["messages"][0]["content"][0]["image_url"]["url"]


def test_an_open_loop_measures_from_when_requests_were_due(tmp_path: Path) -> None:
    """A server that answers one request at a time, and slower than they come: the queue has to show in the latencies.

    A client that waited for replies, or counted from when it sent, would report the service time of 0.1 s.
    """
    one_at_a_time = threading.Lock()

    def answer(request) -> str:
        with one_at_a_time:
            time.sleep(0.1)
        return "x"

    out, rows, page = tmp_path / "out.json", tmp_path / "rows.csv", tmp_path / "page.html"
    files = ["--out", str(out), "--csv", str(rows), "--html", str(page)]
    flags = ["--rate", "20", "--seed", "5", "--slo", "ttft<0.5", "--fail-if", "p90_ttft>0.5,failed>0"]
    with endpoint(answer) as here:
        assert main(["loadtest", here.base_url, *SHORT, *flags, *files]) == 1
    (found,) = read(out).endpoints
    figures = found.figures
    sent = len(here.seen)
    assert figures.failed == 0
    # Poisson with mean 50 over 2.5 s: within four standard deviations.
    assert 22 <= figures.requests <= 78
    assert figures.requests < sent <= figures.requests + 30  # the rest were warm-up
    assert figures.e2e.max >= 0.1 * sent - 3.0  # the last was due by then, and waited for all before it
    assert figures.ttft.p90 > 0.5
    assert figures.lag.p99 < 0.5  # although it sent on time
    assert 0 <= figures.good_share < 0.5
    assert figures.good == pytest.approx(figures.good_share * figures.requests)
    assert figures.output_tokens == 4 * figures.requests
    assert len({picture(request) for request in here.seen}) == sent

    conditions = read(out).conditions
    assert [(one.expression, one.violated) for one in conditions] == [("p90_ttft>0.5", True), ("failed>0", False)]
    with rows.open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == figures.requests
    assert max(float(row["ttft"]) for row in table) == pytest.approx(figures.ttft.max, abs=1e-6)
    assert sum(second.output_tokens for second in found.timeline) == pytest.approx(figures.output_tokens, abs=3)
    assert sum(second.succeeded for second in found.timeline) == figures.succeeded
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_a_closed_loop_keeps_its_streams_busy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(token_seconds=0.02) as here:
        assert main(["loadtest", here.base_url, *SHORT, "--concurrency", "4", "--clients", "2", "--json"]) == 0
    printed = capsys.readouterr()
    (found,) = LoadTest.model_validate_json(printed.out, strict=True).endpoints
    assert here.most_in_flight == 4
    assert found.client.processes == 2
    # Sleeps are never shorter than asked for; how much longer depends on the machine.
    assert 0.02 <= found.figures.ttft.p50 < 0.5
    assert 0.018 <= found.figures.tpot.p50 < 0.5
    assert found.figures.e2e.p50 >= 0.08
    assert found.figures.requests >= 4
    assert len({picture(request) for request in here.seen}) == len(here.seen)


def test_failures_are_named_and_aborts_are_not_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turn = iter(range(10**6))

    def answer(request) -> str | int:
        return 503 if next(turn) % 3 == 0 else "x"

    out = tmp_path / "out.json"
    mix = ["--rate", "25", "--image-share", "0.5", "--repeated-share", "0.5", "--abort-share", "0.3", "--seed", "1"]
    with endpoint(answer, token_seconds=0.01) as here:
        assert main(["loadtest", here.base_url, *SHORT, *mix, "--out", str(out)]) == 0
    (found,) = read(out).endpoints
    (error,) = found.errors
    assert error.kind == "http 503"
    assert "scripted 503" in error.first
    assert error.count == found.figures.failed > 0
    assert found.figures.aborted > 0
    assert found.figures.requests == found.figures.succeeded + found.figures.failed + found.figures.aborted
    assert found.kinds.keys() == {"image", "repeated", "text"}
    assert sum(kind.requests for kind in found.kinds.values()) == found.figures.requests
    pictures = Counter(picture(one) for one in here.seen if not isinstance(one["messages"][0]["content"], str))
    assert max(pictures.values()) > 1
    assert "http 503" in capsys.readouterr().out


def test_when_nothing_succeeds_the_exit_code_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(lambda request: 500) as here:
        flags = ["--rate", "10", "--fail-if", "p99_ttft>100"]
        assert main(["loadtest", here.base_url, *SHORT, *flags]) == 1
    printed = capsys.readouterr()
    assert "no request succeeded; http 500" in printed.err
    assert "fails" in printed.out


def test_two_endpoints_take_turns_on_the_same_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    turns: list[str] = []

    def noting(name: str):
        def answer(request) -> str:
            turns.append(name)
            return "x"

        return answer

    with endpoint(noting("A"), token_seconds=0.02) as first, endpoint(noting("B"), token_seconds=0.06) as second:
        load = ["--rate", "8", "--warm-up", "0.5", "--duration", "1.5", "--image-size", "32", "--output-tokens", "4"]
        flags = ["--fail-if", "ratio_p50_tpot>1.5", "--out", str(out), "--html", str(page)]
        urls = ["--compare", first.base_url, second.base_url]
        assert main(["loadtest", *urls, *load, *flags]) == 1
    document = read(out)
    assert [one.name for one in document.endpoints] == ["A", "B"]
    ratios = {one.figure: one for one in document.ratios}
    assert 1.5 < ratios["p50_tpot"].pooled < 3.5
    assert len(ratios["p50_tpot"].rounds) == 2
    assert ratios["p50_tpot"].low <= ratios["p50_tpot"].median <= ratios["p50_tpot"].high
    changes = [turns[0], *(b for a, b in pairwise(turns) if a != b)]
    assert changes == ["A", "B", "A"]  # A, B B, A: each round in the other order
    assert {picture(one) for one in first.seen} == {picture(one) for one in second.seen}
    assert len({picture(one) for one in first.seen}) == len(first.seen)
    assert "B / A" in capsys.readouterr().out
    assert "Ratios of B to A" in page.read_text()


def test_locust_alone_runs_the_locustfile(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    with endpoint() as here:
        command = [
            sys.executable,
            "-m",
            "locust",
            "-f",
            str(LOCUSTFILE),
            "--host",
            here.base_url,
            "--headless",
            "--json",
        ]
        flags = ["--users", "2", "--rate", "5", "--model", "m", "--records", str(records), *SHORT]
        done = subprocess.run(
            [*command, *flags], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=60
        )
    assert done.returncode == 0, done.stderr
    told = {one["method"]: one["num_requests"] for one in json.loads(done.stdout)}
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    requests = [line for line in lines if "client" not in line]
    assert told == {"ttft": len(requests), "e2e": len(requests)}
    assert len(requests) == len(here.seen) > 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_clients_too(number: signal.Signals, tmp_path: Path) -> None:
    sending = threading.Event()

    def answer(request) -> str:
        sending.set()
        return "x"

    with endpoint(answer, token_seconds=0.5) as here:
        flags = ["--rate", "5", "--duration", "60", "--image-size", "32", "--html", str(tmp_path / "page.html")]
        command = [sys.executable, "-m", "vhserve.cli", "loadtest", here.base_url, *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert sending.wait(60)
        clients = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, words = process.communicate(timeout=40)
    assert process.returncode == 128 + number
    assert "Traceback" not in words
    assert clients
    assert not any(client.is_running() and client.status() != psutil.STATUS_ZOMBIE for client in clients)
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["http://127.0.0.1:9/v1"], "gives no list of models"),
        (["127.0.0.1:8000"], "is not an address"),
        (["--compare", "http://127.0.0.1:9/v1"], "1 addresses are given with --compare"),
        (["http://127.0.0.1:9/v1", "http://127.0.0.1:8/v1"], "2 addresses are given without --compare"),
        (["--compare", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/"], "both addresses are"),
        (["--rate", "2", "--concurrency", "2"], "both given"),
        (["--rate", "0"], "--rate is 0"),
        (["--rounds", "3"], "--rounds changes nothing without --compare"),
        (["--pool", "9"], "--pool changes nothing without --repeated-share"),
        (["--image-share", "0", "--repeated-share", "0.5"], "--repeated-share changes nothing without --image-share"),
        (["--image-share", "0", "--image-size", "96"], "--image-size changes nothing without --image-share"),
        (["--clients", "9", "--concurrency", "8"], "nothing for some of them"),
        (["--slo", "ttft>1"], "'ttft>1' is no limit"),
        (["--fail-if", "p99_ttft>0.5,speed<1"], "names no figure"),
        (["--fail-if", "ratio_p50_ttft>1"], "--compare"),
        (["--out", "/nowhere/out.json"], "cannot write /nowhere/out.json"),
        (["--duration", "0"], "--duration"),
        (["--image-share", "1.5"], "--image-share"),
        (["--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(flags: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["loadtest", *flags]) == 2
    printed = capsys.readouterr()
    assert part in printed.err
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1


def test_an_unknown_model_is_named_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(models=("one", "two")) as here:
        assert main(["loadtest", here.base_url, "--model", "three"]) == 2
    assert "model 'three' is not served" in capsys.readouterr().err
    assert here.seen == []
