"""How the ends of requests are counted, by what passes a middleware."""

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY

from vhserve.server.metric_definitions import OUTCOMES
from vhserve.server.request_metrics import RequestMetrics

START = {"type": "http.response.start", "status": 200, "headers": []}
ASKED = {"type": "http.request", "body": b"{}", "more_body": False}
GONE = {"type": "http.disconnect"}


def body(content: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def status(code: int) -> list[dict[str, Any]]:
    return [{**START, "status": code}, body(b"{}")]


def counts() -> dict[str, float]:
    read = REGISTRY.get_sample_value
    return {outcome: read("vhserve_requests_total", {"outcome": outcome}) or 0 for outcome in OUTCOMES}


def counted(
    sends: list[dict[str, Any]],
    receives: list[dict[str, Any]],
    *,
    late: list[dict[str, Any]] | None = None,
    error: Exception | None = None,
    path: str = "/v1/chat/completions",
    method: str = "POST",
) -> dict[str, float]:
    """What one request adds: the application reads, sends, reads what comes `late`, and may fail."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in receives:
            await receive()
        for message in sends:
            await send(message)
        for _ in late or []:
            await receive()
        if error is not None:
            raise error

    incoming = iter([*receives, *(late or [])])
    passed: list[Any] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        passed.append(message)

    middleware = RequestMetrics(app)
    before = counts()
    scope = {"type": "http", "method": method, "path": path, "root_path": ""}
    if error is None:
        asyncio.run(middleware(scope, receive, send))
    else:
        with pytest.raises(type(error)):
            asyncio.run(middleware(scope, receive, send))
    assert passed == sends
    return {outcome: now - before[outcome] for outcome, now in counts().items() if now != before[outcome]}


@pytest.mark.parametrize(("code", "outcome"), [(400, "refused"), (401, "refused"), (413, "refused"), (503, "refused")])
def test_what_the_server_does_not_take_is_refused(code: int, outcome: str) -> None:
    assert counted(status(code), [ASKED]) == {outcome: 1}


def test_failures_inside_are_errors() -> None:
    assert counted(status(500), [ASKED]) == {"error": 1}
    assert counted([], [ASKED], error=RuntimeError("boom")) == {"error": 1}
    failing = [START, body(b'data: {"choices": []}\n\n', True), body(b'data: {"error": {"message": "x"}}\n\n', True)]
    assert counted([*failing, body(b"")], [ASKED]) == {"error": 1}


def test_answers_are_left_to_the_engine_s_statistics() -> None:
    assert counted([START, body(b"data: {}\n\n", True), body(b"")], [ASKED], late=[GONE]) == {}


def test_a_client_that_leaves_before_the_end_is_an_abort() -> None:
    assert counted([START, body(b"data: {}\n\n", True)], [ASKED], late=[GONE]) == {"abort": 1}
    assert counted([], [ASKED, GONE]) == {"abort": 1}


def test_a_request_counts_once_by_its_first_cause() -> None:
    assert counted(status(500)[:1], [ASKED], late=[GONE], error=RuntimeError("boom")) == {"error": 1}


def test_only_requests_for_tokens_count() -> None:
    assert counted(status(404), [ASKED], path="/v1/nothing") == {}
    assert counted(status(400), [ASKED], path="/tokenize") == {}
    assert counted(status(405), [], method="GET") == {}
    assert counted(status(400), [ASKED], path="/v1/completions/") == {"refused": 1}
