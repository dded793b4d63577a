"""A real server, started as a user starts it, and what tests do with it: ask, scrape, wait.

The fixture `server` in conftest.py is one of them, shared by all files. Judges nothing.
"""

import base64
import io
import json
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import openai
import psutil
from engine_prompts import image
from prometheus_client.parser import text_string_to_metric_families
from workers import free_port

FLAGS = ["--dtype", "float32", "--block-size", "32", "--max-model-len", "512", "--max-num-seqs", "8", "--enforce-eager"]
QUESTION = "how many red circles are there ?"
READY_WITHIN = 400
KEY = "a-key"


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    text: str
    headers: dict[str, str]


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=120)

    def series(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Value of one series; 0 where it is not shown."""
        return self.series().get((name, frozenset(labels.items())), 0.0)

    def wait_for(self, name: str, reached: Callable[[float], bool], seconds: float = 60, **labels: str) -> float:
        """Scrape until a series has come so far."""
        deadline = time.monotonic() + seconds
        while not reached(value := self.value(name, **labels)):
            assert time.monotonic() < deadline, f"{name} {labels} stays at {value}"
            time.sleep(0.2)
        return value

    def post(self, body: Any, path: str = "/v1/chat/completions", key: str | None = KEY) -> Reply:
        """Send a body, JSON unless it is bytes, as it is; an error's status is an answer as well."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(self.url + path, raw, headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return Reply(answer.status, answer.read().decode(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read().decode(), dict(error.headers))

    def kill(self) -> list[psutil.Process]:
        """Kill the process that was started, and no other; gives those of its processes that live on for 15 seconds."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        assert started
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(started, timeout=15)
        return alive

    def is_ready(self) -> bool:
        try:
            self.get("/health")
        except (urllib.error.URLError, OSError):
            return False
        return True


@contextmanager
def serving(folder: Path, environment: dict[str, str], *args: str) -> Iterator[Server]:
    """A server on a free port, ended when the block ends if it still runs."""
    port = free_port()
    command = [sys.executable, "-m", "vhserve.cli", "serve", *args, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + READY_WITHIN
        while not server.is_ready():
            assert process.poll() is None, log.read_text(errors="replace")[-6000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-6000:]
            time.sleep(0.5)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def data_url(raw: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def encoded(picture: Any, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def message(*urls: str, text: str = QUESTION) -> dict[str, Any]:
    """A user's message with pictures by their URLs."""
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}


def picture_message(seed: int) -> dict[str, Any]:
    return message(data_url(encoded(image(seed, (72, 72)))))


def slow_choices(seed: int) -> list[str]:
    """Within every limit of size, and minutes to compile, whatever the vocabulary."""
    rng = Random(seed)
    return ["".join(rng.choices(string.ascii_lowercase, k=200)) for _ in range(1024)]


def ask(server: Server, model: str, seed: int) -> openai.types.chat.ChatCompletion:
    return server.client().chat.completions.create(
        model=model,
        messages=[picture_message(seed)],  # type: ignore[list-item]
        max_tokens=1,
        temperature=0,
        logprobs=True,
        top_logprobs=8,
        extra_body={"return_token_ids": True},
    )
