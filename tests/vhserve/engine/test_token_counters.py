"""Counters of a server's traffic, against requests whose tokens and ends are known."""

import concurrent.futures
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from live_server import KEY, Server, ask, picture_message
from oracle import TinyModel

from vhserve.server.metric_definitions import DEFINITIONS

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

COUNTED = ("vhserve_image_tokens_total", "vhserve_text_tokens_total", "vhserve_image_blocks_skipped_total")


@pytest.fixture(autouse=True)
def _canary_is_through(server: Server, canary_seeds: list[int]) -> None:
    """It asks once, at the start; its requests are counted like any other's."""
    server.wait_for("vhserve_canary_samples", lambda value: value == len(canary_seeds), dataset="labelled.jsonl")


def counts(server: Server) -> dict[str, float]:
    return {name: server.value(name) for name in COUNTED} | {
        outcome: server.value("vhserve_requests_total", outcome=outcome)
        for outcome in ("stop", "length", "abort", "error", "refused")
    }


def difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def test_tokens_and_blocks_of_a_picture(server: Server, models: dict[str, TinyModel]) -> None:
    before = counts(server)
    said = ask(server, str(models["gqa"].path), seed=101)
    assert said.usage is not None
    seen = difference(before, counts(server))
    # The picture is 81 tokens from position 5 on, so that one block of 32 holds nothing else; the text-only layer is
    # one group.
    assert seen == {
        "vhserve_image_tokens_total": 81,
        "vhserve_text_tokens_total": said.usage.prompt_tokens - 81,
        "vhserve_image_blocks_skipped_total": 1,
        "length": 1,
    }


def test_text_alone_skips_nothing(server: Server, models: dict[str, TinyModel]) -> None:
    before = counts(server)
    said = server.client().completions.create(model=str(models["gqa"].path), prompt="red " * 100, max_tokens=1, n=2)
    assert said.usage is not None
    # Two sequences of one prompt.
    tokens = 2 * said.usage.prompt_tokens
    assert tokens >= 200
    assert difference(before, counts(server)) == {"vhserve_text_tokens_total": tokens, "length": 2}


def leave(server: Server, body: dict[str, Any], events: int) -> None:
    """Ask for a stream, read so many events, and hang up."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request(
        "POST",
        "/v1/chat/completions",
        json.dumps(body | {"stream": True}),
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    answer = connection.getresponse()
    assert answer.status == 200
    for _ in range(2 * events):
        answer.readline()
    connection.close()


def test_clients_that_leave_200_times(server: Server, models: dict[str, TinyModel]) -> None:
    """While /metrics is read; at the end nothing runs, nothing waits and no block is held."""
    before = counts(server)
    body = {"model": str(models["gqa"].path), "max_tokens": 400, "ignore_eos": True, "temperature": 0}
    bodies = [body | {"messages": [picture_message(number % 5)]} for number in range(200)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number, _ in enumerate(pool.map(lambda one: leave(server, one, 2), bodies)):
            if number % 10 == 0:
                server.get("/metrics")
    labels = {"engine": "0", "model_name": str(models["gqa"].path)}
    server.wait_for("vllm:num_requests_running", lambda value: value == 0, **labels)
    assert server.wait_for("vllm:kv_cache_usage_perc", lambda value: value == 0, **labels) == 0
    after = server.wait_for("vhserve_requests_total", lambda value: value >= before["abort"] + 200, outcome="abort")
    assert after == before["abort"] + 200
    assert server.value("vhserve_requests_total", outcome="error") == before["error"]
    assert ask(server, str(models["gqa"].path), 1).choices[0].message.content


def test_an_overload_is_refused_and_the_rest_is_served(server: Server, models: dict[str, TinyModel]) -> None:
    """Batches of 8 and a queue of four batches: 32 fit."""
    body = {"model": str(models["gqa"].path), "max_tokens": 100, "ignore_eos": True, "temperature": 0}
    bodies = [body | {"messages": [picture_message(number % 3)]} for number in range(120)]
    before = counts(server)
    with concurrent.futures.ThreadPoolExecutor(120) as pool:
        replies = list(pool.map(server.post, bodies))
    served = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 503]
    assert len(served) + len(refused) == 120
    assert len(served) >= 32
    assert len(refused) > 0
    for reply in refused:
        assert reply.headers["retry-after"] == "1"
        assert json.loads(reply.text)["error"]["code"] == 503
    after = counts(server)
    assert after["refused"] - before["refused"] == len(refused)
    assert after["length"] - before["length"] == len(served)
    assert after["error"] == before["error"]
    assert server.is_ready()


def test_every_series_that_it_shows_is_in_the_table(server: Server) -> None:
    shown = {name for name, _ in server.series() if name.startswith("vhserve_")}
    endings = ("_bucket", "_count", "_sum", "_created")
    bare = {next((name.removesuffix(end) for end in endings if name.endswith(end)), name) for name in shown}
    # `_created` stands in place of `_total`.
    known = set(DEFINITIONS) | {name.removesuffix("_total") for name in DEFINITIONS}
    assert bare <= known
    # All but those of latencies, which have none before the first comparison.
    assert {name for name in DEFINITIONS if "request_seconds" not in name} <= bare
