"""A live `vhserve serve` on the demo model with canary and shadow, a little load on it, and a real Prometheus.

Owns how they are started and ended, all on loopback. Does not know what is looked at.
"""

import base64
import contextlib
import io
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from expressions import DEPLOY, ROOT, RULES
from scripted_endpoint import endpoint, question_of
from tools import tool
from workers import free_port

from calibrate.datasets.synthetic import FAMILIES, make_sample
from profiles.measurement import Measurement
from profiles.store import load_plan, save
from vhserve.child_processes import VHSERVE, serving

PLAN = DEPLOY / "kubernetes" / "overlays" / "cpu" / "plan.json"
FLAGS = ("--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "8", "--enforce-eager", "--block-size", "32")
ENVIRONMENT = {
    **os.environ,
    "VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm"),
    "TORCHINDUCTOR_CACHE_DIR": str(ROOT / ".cache" / "inductor"),
    "MPLCONFIGDIR": str(ROOT / ".cache" / "matplotlib"),
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str) -> str:
    with OPENER.open(url, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def ask(port: int, number: int, tokens: int) -> int:
    """One chat request, every fourth without a picture; returns the status."""
    sample = make_sample(FAMILIES[number % len(FAMILIES)], number, "measuring", 0)
    content: list[dict[str, Any]] = [{"type": "text", "text": sample.question}]
    if number % 4:
        file = io.BytesIO()
        sample.image.save(file, "PNG")
        picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": picture}})
    message = {"role": "user", "content": content}
    body = {"model": "demo", "messages": [message], "temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with OPENER.open(request, timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@contextlib.contextmanager
def load(port: int, streams: int = 3) -> Iterator[list[int]]:
    """Requests in closed loop until the block ends, a few of them too long to be served; yields the statuses."""
    statuses: list[int] = []
    stop = threading.Event()

    def work(first: int) -> None:
        for number in range(first, 100_000, streams):
            if stop.is_set():
                return
            statuses.append(ask(port, number, 4096 if number % 50 == 7 else 8))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(streams)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@dataclass
class Prometheus:
    """The HTTP API of a running Prometheus."""

    port: int

    def api(self, path: str, **parameters: Any) -> Any:
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(get(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def now(self, query: str) -> list[dict[str, Any]]:
        """Result of an instant query."""
        found: list[dict[str, Any]] = self.api("query", query=query)["result"]
        return found

    def over(self, query: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Series of a range query."""
        found: list[dict[str, Any]] = self.api("query_range", query=query, start=start, end=end, step=step)["result"]
        return found


@contextlib.contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    """A real Prometheus with deploy/'s configuration and rules; only the target and the intervals are its own."""
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "2s"}
    configuration["rule_files"] = [str(RULES)]
    for job in configuration["scrape_configs"]:
        job["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
            with contextlib.suppress(OSError):
                get(f"http://127.0.0.1:{port}/-/ready")
                break
            time.sleep(0.2)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[int]:
    """The demo model, pruned, with a canary and a shadow; yields its port."""
    recorded = [
        Measurement(
            dataset="synthetic", arm=arm, family="all", samples=50, correct=49, accuracy=0.98, low=0.89, high=1.0
        )
        for arm in ("baseline", "pruned")
    ]
    save(load_plan(PLAN).model_copy(update={"measured": recorded}), folder / "plan.json")
    port = free_port()
    # Answers one question rightly now and then, so that both outcomes are seen.
    with endpoint(lambda request: "1" if "many" in question_of(request) else "no", models=("demo",)) as reference:
        command = (
            *(*VHSERVE, "serve", "demo", "--plan", str(folder / "plan.json"), "--host", "127.0.0.1"),
            *("--port", str(port), *FLAGS),
            *("--canary", "synthetic", "--canary-samples", "6", "--canary-interval", "15"),
            *("--shadow-url", reference.base_url, "--shadow-fraction", "1"),
        )
        with serving("watched", command, port, folder / "server.log", ENVIRONMENT, 400):
            yield port
