"""A server whose engine dies, that is told to end under load, or whose engine refuses to start."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_server import FLAGS, Server, picture_message, serving
from oracle import TinyModel

pytestmark = [pytest.mark.vllm, pytest.mark.long, pytest.mark.timeout(900)]

STREAMS = 8


@contextmanager
def scraping(server: Server) -> Iterator[list[int]]:
    """Read /metrics and /health every tenth of a second; gives the statuses of /health, 0 for no answer."""
    stop, health = threading.Event(), []

    def look() -> None:
        while not stop.wait(0.1):
            try:
                server.get("/health")
                health.append(200)
                assert server.series()
            except urllib.error.HTTPError as error:
                health.append(error.code)
            except (urllib.error.URLError, OSError):
                health.append(0)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield health
    finally:
        stop.set()
        thread.join()


def stream(server: Server, model: str, number: int, tokens: int, started: threading.Semaphore) -> list[dict[str, Any]]:
    """Ask for a stream; returns its events, with one of ours where the connection broke."""
    body = {
        "model": model,
        "messages": [picture_message(number)],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    events: list[dict[str, Any]] = []
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    events.append(json.loads(line[len(b"data: ") :]))
                    if len(events) == 3:
                        started.release()
                elif line.startswith(b"data: [DONE]"):
                    events.append({"done": True})
    except urllib.error.HTTPError as error:
        events.append({"error": {"code": error.code}})
    except (urllib.error.URLError, OSError) as error:
        events.append({"broken": repr(error)})
    return events


@contextmanager
def under_load(server: Server, model: str, tokens: int) -> Iterator[list["concurrent.futures.Future[Any]"]]:
    """So many streams, every one of which has begun when the block does."""
    started = threading.Semaphore(0)
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream, server, model, number, tokens, started) for number in range(STREAMS)]
        for _ in range(STREAMS):
            assert started.acquire(timeout=120)
        yield streams


def engine_of(server: Server) -> psutil.Process:
    children = psutil.Process(server.process.pid).children(recursive=True)
    (engine,) = [child for child in children if any("EngineCore" in part for part in child.cmdline())]
    return engine


def test_a_killed_engine_ends_everything(
    models: dict[str, TinyModel], plan_file: Path, vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    model = str(models["gqa"].path)
    with serving(tmp_path, vllm_environment, model, "--plan", str(plan_file), *FLAGS) as server:
        with scraping(server) as health, under_load(server, model, 400) as streams:
            engine_of(server).send_signal(signal.SIGKILL)
            results = [one.result() for one in streams]
            code = server.process.wait(60)
        # vLLM ends a stream with [DONE] after its error.
        ends = [[event for event in events if "error" in event or "broken" in event] for events in results]
        assert all(ends), results
        assert any("error" in end[-1] for end in ends), ends
        after = health[health.index(200) :]
        assert set(after) <= {200, 503, 0}
        assert 503 in after
        left = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or ())]
        assert left == []
        assert code != 0


@pytest.mark.parametrize("api_servers", [1, 2])
def test_sigterm_lets_running_streams_end_and_refuses_new_requests(
    models: dict[str, TinyModel], plan_file: Path, vllm_environment: dict[str, str], tmp_path: Path, api_servers: int
) -> None:
    model = str(models["gqa"].path)
    args = (model, "--plan", str(plan_file), *FLAGS, "--api-server-count", str(api_servers))
    environment = {**vllm_environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    late = ("--middleware", "late_cancellation.LateCancellation")
    with serving(tmp_path, environment, *args, *late) as server:
        with scraping(server) as health, under_load(server, model, 400) as streams:
            told = len(health)
            server.process.send_signal(signal.SIGTERM)
            while not {503, 0} & set(health[told:]):
                time.sleep(0.05)
            refused = server.post({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})
            assert any(not one.done() for one in streams)
            results = [one.result() for one in streams]
        assert server.process.wait(60) == 0
        for events in results:
            assert events[-1] == {"done": True}, events[-1]
            reasons = [choice.get("finish_reason") for event in events[:-1] for choice in event.get("choices", ())]
            assert [reason for reason in reasons if reason] == ["length"]
        assert (refused.status, refused.headers["retry-after"]) == (503, "1"), refused
        assert "draining" in json.loads(refused.text)["error"]["message"]
        assert 503 in health[told:]
        assert 200 not in health[health.index(503) :]
        assert "Traceback" not in server.log.read_text(errors="replace")


@pytest.mark.parametrize("api_servers", [1, 2])
def test_what_outlives_the_time_to_drain_in_is_ended(
    models: dict[str, TinyModel], plan_file: Path, vllm_environment: dict[str, str], tmp_path: Path, api_servers: int
) -> None:
    """Streams of 1,800 tokens, each a step of all API servers' engine, have a second and a half."""
    model = str(models["gqa"].path)
    args = (model, "--plan", str(plan_file), *FLAGS, "--api-server-count", str(api_servers), "--shutdown-timeout", "2")
    with serving(tmp_path, vllm_environment, *args, "--max-model-len", "2048") as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        with under_load(server, model, 1800) as streams:
            told = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            results = [one.result() for one in streams]
            code = server.process.wait(60)
            took = time.monotonic() - told
        assert code == 0
        assert took < 30
        assert psutil.wait_procs(family, timeout=10)[1] == []
        reasons = [
            choice["finish_reason"]
            for events in results
            for event in events
            for choice in event.get("choices", ())
            if choice.get("finish_reason")
        ]
        assert "abort" in reasons, results
        assert set(reasons) <= {"abort", "length"}
        log = server.log.read_text(errors="replace")
        assert "requests that still ran were aborted" in log
        assert "Traceback" not in log


def is_spawned(process: psutil.Process) -> bool:
    """Whether it is an engine or an API server, and not a program that ends by itself."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.parametrize("api_servers", [1, 2])
@pytest.mark.parametrize("moment", ["vLLM reads its configuration", "the engine begins", "the engine loads weights"])
def test_sigterm_while_it_starts_ends_everything_within_seconds(
    models: dict[str, TinyModel],
    plan_file: Path,
    vllm_environment: dict[str, str],
    tmp_path: Path,
    moment: str,
    api_servers: int,
) -> None:
    said = {
        "vLLM reads its configuration": "Resolved architecture",
        "the engine loads weights": "Starting to load model",
    }
    command = [sys.executable, "-m", "vhserve.cli", "serve", str(models["gqa"].path), "--plan", str(plan_file), *FLAGS]
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", "0", "--host", "127.0.0.1", "--api-server-count", str(api_servers)],
            stdout=output, stderr=subprocess.STDOUT, env=vllm_environment,
        )  # fmt: skip
    try:
        started = psutil.Process(process.pid)
        deadline = time.monotonic() + 600

        def has_come() -> bool:
            if moment in said:
                return said[moment] in log.read_text(errors="replace")
            return any(is_spawned(one) for one in started.children())

        while not has_come():
            assert process.poll() is None, log.read_text(errors="replace")[-6000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-6000:]
            time.sleep(0.02)
        family = started.children(recursive=True)
        process.terminate()
        process.wait(20)
        assert psutil.wait_procs(family, timeout=10)[1] == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_refusal_of_the_engine_ends_in_one_line(
    models: dict[str, TinyModel], plan_file: Path, vllm_environment: dict[str, str]
) -> None:
    """A model that its user overrides into another one than the plan is for, which only the engine sees."""
    command = [sys.executable, "-m", "vhserve.cli", "serve", str(models["gqa"].path), "--plan", str(plan_file), *FLAGS]
    overrides = ["--hf-overrides", '{"text_config": {"num_hidden_layers": 3}}', "--port", "0"]
    done = subprocess.run([*command, *overrides], env=vllm_environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("vhserve: error:")
    assert "layers 4" in last
    assert "layers 3" in last
    assert "Traceback" not in done.stderr[done.stderr.rindex("vhserve: error:") :]
