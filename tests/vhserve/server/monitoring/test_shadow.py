"""The shadow: what it compares, what it leaves alone, and that users never wait for it."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from live_server import Server, picture_message
from oracle import TinyModel
from prometheus_client import REGISTRY
from scripted_endpoint import Reply, completion, endpoint

from vhserve.server.monitoring.exchange import Exchange, comparable_request, reply_text
from vhserve.server.monitoring.reference import Reference
from vhserve.server.monitoring.request_mirror import RequestMirror
from vhserve.server.monitoring.shadow import MAX_QUEUED, Shadow

OUTCOMES = ("agree", "differ", "failed", "skipped")


def counts() -> dict[str, float]:
    read = REGISTRY.get_sample_value
    return {outcome: read("vhserve_shadow_requests_total", {"outcome": outcome}) or 0 for outcome in OUTCOMES}


def since(before: dict[str, float]) -> dict[str, float]:
    return {outcome: now - before[outcome] for outcome, now in counts().items() if now != before[outcome]}


def exchange(said: str = "red", **request: Any) -> Exchange:
    asked = {"model": "pruned", "messages": [{"role": "user", "content": "x"}], "temperature": 0} | request
    return Exchange("/chat/completions", json.dumps(asked).encode(), json.dumps(completion(said)).encode(), 0.2)


async def until(reached: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, counts()
        await asyncio.sleep(0.01)


def shadowed(base_url: str, work: Callable[[Shadow], Any]) -> None:
    """Run a shadow of a reference while `work` runs."""

    async def both() -> None:
        reference = Reference(base_url)
        shadow = Shadow(reference)
        task = asyncio.create_task(shadow.run_forever())
        try:
            await work(shadow)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await reference.close()

    asyncio.run(both())


def test_answers_are_compared_and_both_latencies_kept() -> None:
    def answer(request: dict[str, Any]) -> Reply:
        return 400 if request.get("max_tokens") == 7 else "red"

    before = counts()
    with endpoint(answer, models=("reference",)) as there:

        async def work(shadow: Shadow) -> None:
            await until(lambda: bool(shadow.up))
            offered = [exchange("red"), exchange("blue"), exchange(max_tokens=7), exchange(temperature=0.5)]
            for one in [*offered, exchange("red", stream=True, priority=3, cache_salt="s")]:
                shadow.offer(one)
            await until(lambda: sum(since(before).values()) == 5)
            assert shadow.up

        shadowed(there.base_url, work)
    assert since(before) == {"agree": 2, "differ": 1, "failed": 1, "skipped": 1}
    assert {request["model"] for request in there.seen} == {"reference"}
    assert not any({"stream", "priority", "cache_salt"} & set(request) for request in there.seen)
    assert there.most_in_flight == 1
    pruned = REGISTRY.get_sample_value("vhserve_shadow_request_seconds_sum", {"arm": "pruned"})
    assert pruned is not None
    assert pruned >= 3 * 0.2


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_reference_that_fails_is_left_alone(status: int) -> None:
    before = counts()
    with endpoint(lambda request: status) as there:

        async def work(shadow: Shadow) -> None:
            await until(lambda: bool(shadow.up))
            for _ in range(5):
                shadow.offer(exchange())
            await until(lambda: sum(since(before).values()) == 5)
            assert shadow.up is False
            assert REGISTRY.get_sample_value("vhserve_shadow_up") == 0
            shadow.offer(exchange())
            await until(lambda: bool(shadow.up))  # it looks again after a pause

        shadowed(there.base_url, work)
    assert since(before) == {"failed": 1, "skipped": 5}
    assert len(there.seen) == 1


def test_a_reference_that_is_not_there_costs_nothing_and_is_found_when_it_comes() -> None:
    with endpoint() as probe:
        port = probe.port
    before = counts()

    async def work(shadow: Shadow) -> None:
        await until(lambda: shadow.up is False)
        started = time.perf_counter()
        for _ in range(1000):
            shadow.offer(exchange())
        assert time.perf_counter() - started < 0.5
        assert since(before) == {"skipped": 1000}
        assert shadow.bytes == 0

    shadowed(f"http://127.0.0.1:{port}/v1", work)


def test_the_queue_is_bounded_by_number_and_by_bytes() -> None:
    before = counts()

    async def work() -> None:
        shadow = Shadow(Reference("http://127.0.0.1:1/v1"))
        shadow.up = True  # and nobody works
        for _ in range(MAX_QUEUED + 3):
            shadow.offer(exchange())
        assert len(shadow.queue) == MAX_QUEUED
        shadow.queue.clear()
        big = Exchange("/chat/completions", bytes(40 << 20), b"", 0.1)
        shadow.bytes = 0
        shadow.offer(big)
        shadow.offer(big)
        assert len(shadow.queue) == 1
        await shadow.reference.close()

    asyncio.run(work())
    assert since(before) == {"skipped": 4}


@pytest.mark.parametrize(
    ("request_fields", "fits"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0, "n": 1, "stream": True}, True),
        ({"temperature": 1}, False),
        ({}, False),  # the model's own default, which may be anything
        ({"temperature": 0, "n": 2}, False),
        ({"temperature": 0, "prompt": ["a", "b"]}, False),
        ({"temperature": 0, "prompt": "a", "echo": True}, False),
    ],
)
def test_only_one_greedy_answer_is_comparable(request_fields: dict[str, Any], fits: bool) -> None:
    asked = Exchange("/completions", json.dumps(request_fields).encode(), b"", 0.1)
    assert (comparable_request(asked) is not None) == fits


@pytest.mark.parametrize("asked", [b"", b"null", b"[]", b"{broken"])
def test_what_is_no_request_is_not_comparable(asked: bytes) -> None:
    assert comparable_request(Exchange("/completions", asked, b"", 0.1)) is None


def stream(*parts: dict[str, Any]) -> bytes:
    events = [f"data: {json.dumps({'choices': [part]})}\n\n" for part in parts]
    return "".join([*events, 'data: {"choices": [], "usage": {}}\n\n', "data: [DONE]\n\n"]).encode()


@pytest.mark.parametrize(
    ("answered", "text"),
    [
        (json.dumps(completion("two circles")).encode(), "two circles"),
        (json.dumps({"choices": [{"text": "two"}]}).encode(), "two"),
        (stream({"delta": {"role": "assistant", "content": ""}}, {"delta": {"content": "a"}}, {"delta": {}}), "a"),
        (stream({"text": "a"}, {"text": " b"}), "a b"),
        (b'data: {"error": {"message": "x"}}\n\n', None),
        (b"", None),
        (b'{"choices": []}', None),
        (b'{"choices": [{"message": {"content": null}}]}', None),
    ],
)
def test_the_text_of_an_answer(answered: bytes, text: str | None) -> None:
    assert reply_text(answered) == text


def test_a_mirror_passes_everything_on_at_once_and_copies_its_share() -> None:
    offered: list[Exchange] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"asked"
        await send({"type": "http.response.start", "status": scope["status"]})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 2})
            assert len(sent) == number + 2  # nothing is held back
        assert not offered

    async def through(fraction: float, status: int = 200, path: str = "/v1/chat/completions") -> int:
        sent.clear()
        offered.clear()

        async def receive() -> Any:
            return {"type": "http.request", "body": b"asked", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "status": status}
        await RequestMirror(app, fraction, offered.append)(scope, receive, send)
        return len(offered)

    assert asyncio.run(through(1)) == 1
    assert offered[0].path == "/chat/completions"
    assert (offered[0].request_body, offered[0].response_body) == (b"asked", b"xxx")
    assert asyncio.run(through(0)) == 0
    assert asyncio.run(through(1, status=400)) == 0
    assert asyncio.run(through(1, path="/v1/embeddings")) == 0
    shares = [asyncio.run(through(0.3)) for _ in range(2000)]
    assert 0.2 < sum(shares) / 2000 < 0.4


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_on_a_server(server: Server, models: dict[str, TinyModel], reference: Any) -> None:
    assert server.value("vhserve_shadow_up") == 1
    body = {"model": str(models["gqa"].path), "messages": [picture_message(31)], "max_tokens": 3, "temperature": 0}
    first = {outcome: server.value("vhserve_shadow_requests_total", outcome=outcome) for outcome in OUTCOMES}
    reference.says = "something else"
    here = json.loads(server.post(body).text)["choices"][0]["message"]["content"]
    server.wait_for("vhserve_shadow_requests_total", lambda value: value == first["differ"] + 1, outcome="differ")
    reference.says = here
    assert server.post(body | {"stream": True}).text.count("data:") > 3
    server.wait_for("vhserve_shadow_requests_total", lambda value: value == first["agree"] + 1, outcome="agree")
    assert server.post(body | {"temperature": 1}).status == 200
    server.wait_for("vhserve_shadow_requests_total", lambda value: value == first["skipped"] + 1, outcome="skipped")
    assert server.value("vhserve_shadow_request_seconds_count", arm="pruned") == server.value(
        "vhserve_shadow_request_seconds_count", arm="reference"
    )
    # The reference breaks: users notice nothing.
    reference.says = 500
    assert server.post(body).status == 200
    server.wait_for("vhserve_shadow_up", lambda value: value == 0)
    assert server.post(body).status == 200
    reference.says = here
    server.wait_for("vhserve_shadow_up", lambda value: value == 1)
