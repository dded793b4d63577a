"""Structured outputs at the shared server: those that compile in time are answered, others end and leave nothing."""

import concurrent.futures
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from live_server import KEY, Reply, Server, slow_choices
from oracle import TinyModel

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

SECONDS = 5.0
"""Default of --max-grammar-seconds."""


def body(model: str, **parameters: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "red"}], "max_tokens": 4, **parameters}


def ask(server: Server, model: str, **constraint: Any) -> Reply:
    return server.post(body(model, structured_outputs=constraint))


def refusal(reply: Reply) -> str:
    assert reply.status == 400, reply
    message: str = json.loads(reply.text)["error"]["message"]
    return message


def test_choices_schemas_and_expressions_are_answered(server: Server, models: dict[str, TinyModel]) -> None:
    model = str(models["gqa"].path)
    for _ in range(2):  # the second time they are known
        reply = ask(server, model, choice=["red", "green"])
        assert json.loads(reply.text)["choices"][0]["message"]["content"].strip() in ("red", "green"), reply
    assert ask(server, model, regex="(red|green)+").status == 200
    number = json.loads(ask(server, model, json={"type": "integer"}).text)["choices"][0]["message"]["content"]
    assert number.replace(" ", "").isdigit()  # the tiny vocabulary puts a blank before each digit


def test_what_no_token_can_begin_is_refused(server: Server, models: dict[str, TinyModel]) -> None:
    assert "no token" in refusal(ask(server, str(models["gqa"].path), choice=["¶"]))


def test_two_megabytes_of_choices_are_refused_before_anything_compiles(
    server: Server, models: dict[str, TinyModel]
) -> None:
    begun = time.monotonic()
    reply = ask(server, str(models["gqa"].path), choice=[f"choice number {one}" for one in range(100_000)])
    assert "--max-parameter-entries" in refusal(reply)
    assert json.loads(reply.text)["error"]["param"] == "structured_outputs.choice"
    assert time.monotonic() - begun < SECONDS


def test_what_compiles_for_too_long_is_ended(server: Server, models: dict[str, TinyModel]) -> None:
    model = str(models["gqa"].path)
    assert ask(server, model, choice=["many", "are"]).status == 200
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = [pool.submit(ask, server, model, choice=slow_choices(seed)) for seed in (1, 1, 2)]
        messages = [refusal(one.result()) for one in slow]
    assert all("--max-grammar-seconds" in message for message in messages), messages
    assert ask(server, model, choice=["red", "blue"]).status == 200
    assert compiling(server, within=SECONDS) < 1
    begun = time.monotonic()
    assert "--max-grammar-seconds" in refusal(ask(server, model, choice=slow_choices(2)))  # it is remembered
    assert time.monotonic() - begun < SECONDS


def test_a_client_that_leaves_ends_its_compilation(server: Server, models: dict[str, TinyModel]) -> None:
    model = str(models["gqa"].path)
    raw = json.dumps(body(model, structured_outputs={"choice": slow_choices(3)})).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + raw)
        time.sleep(0.5)
    assert compiling(server, within=4 * SECONDS) < 1
    assert ask(server, model, choice=["red", "yellow"]).status == 200


def test_a_grammar_that_is_none_is_refused(server: Server, models: dict[str, TinyModel]) -> None:
    model = str(models["gqa"].path)
    for constraint in ({"regex": "("}, {"grammar": "root ::= x y ::= "}, {"json": {"type": "nothing known"}}):
        refusal(ask(server, model, **constraint))
    assert server.is_ready()


def compiling(server: Server, within: float) -> float:
    """Processors that the server keeps busy, over half a second, as soon as it is less than one, or at the end."""
    processes = [one for one in psutil.Process(server.process.pid).children(recursive=True) if one.status() != "zombie"]
    deadline = time.monotonic() + within
    while True:
        before = [one.cpu_times() for one in processes if one.is_running()]
        time.sleep(0.5)
        after = [one.cpu_times() for one in processes if one.is_running()]
        busy = (sum(one.user for one in after) - sum(one.user for one in before)) / 0.5
        if busy < 1 or time.monotonic() > deadline:
            return busy
