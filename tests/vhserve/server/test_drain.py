"""What a draining API server answers, and for whom it waits. With vLLM's server under load: test_faults.py."""

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from vhserve.server.drain import Drain


def scope(method: str, path: str) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": []}


async def ask(drain: Drain, asked: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await drain(asked, receive, send)
    return sent


@pytest.mark.parametrize(
    ("method", "path", "passes"),
    [
        ("POST", "/v1/chat/completions", False),
        ("POST", "/tokenize", False),
        ("GET", "/health", False),
        ("GET", "/ping", False),
        ("GET", "/metrics", True),
        ("GET", "/v1/models", True),
    ],
)
def test_what_passes_while_it_drains(method: str, path: str, passes: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    drain = Drain(app)
    before = asyncio.run(ask(drain, scope(method, path)))
    drain.draining = True
    during = asyncio.run(ask(drain, scope(method, path)))
    assert before[0]["status"] == 200
    assert during[0]["status"] == (200 if passes else 503)
    if not passes:
        assert dict(during[0]["headers"])[b"retry-after"].isdigit()
        body = b"".join(message["body"] for message in during[1:])
        assert "draining" in json.loads(body)["error"]["message"]


def test_a_websocket_is_closed_while_it_drains() -> None:
    drain = Drain(None)
    drain.draining = True
    assert asyncio.run(ask(drain, {"type": "websocket", "path": "/v1/realtime"})) == [
        {"type": "websocket.close", "code": 1012}
    ]


def test_what_outlives_the_time_to_drain_in_is_aborted(caplog: pytest.LogCaptureFixture) -> None:
    """One request ends when it is aborted; another's client never ends it, and is not waited for."""

    async def run() -> tuple[float, list[list[str]], Any]:
        aborted = asyncio.Event()
        asked_to_abort: list[list[str]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/deaf":
                await asyncio.Event().wait()
            await aborted.wait()

        async def abort(ids: list[str]) -> None:
            asked_to_abort.append(ids)
            aborted.set()

        async def read_outputs() -> None:
            await asyncio.Event().wait()

        reader = asyncio.create_task(read_outputs())
        client = SimpleNamespace(
            abort=abort,
            output_processor=SimpleNamespace(external_req_ids={"a": ["a-0"], "b": ["b-0"]}),
            output_handler=reader,
            engine_core=SimpleNamespace(resources=SimpleNamespace(engine_manager=None)),
        )
        config = SimpleNamespace(timeout_graceful_shutdown=None)
        state = SimpleNamespace(engine_client=client, server=SimpleNamespace(config=config))
        drain = Drain(app)
        running = [asyncio.create_task(ask(drain, scope("POST", path))) for path in ("/v1/completions", "/deaf")]
        await asyncio.sleep(0)
        begun = time.monotonic()
        await drain.drain(state, 1.0)
        took = time.monotonic() - begun
        assert running[0].done()
        assert not running[1].done()
        assert reader.cancelled()
        running[1].cancel()
        return took, asked_to_abort, config

    with caplog.at_level("WARNING", logger="vllm.vhserve"):
        took, asked_to_abort, config = asyncio.run(run())
    assert 0.75 <= took < 1.0 + 5.0
    assert asked_to_abort == [["a", "b"]]
    assert config.timeout_graceful_shutdown == 1  # or uvicorn would wait for it for ever
    assert "2 requests that still ran were aborted" in caplog.text


def test_it_is_idle_when_the_last_request_has_ended() -> None:
    async def run() -> None:
        end = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await end.wait()

        drain = Drain(app)
        assert await drain.wait_until_idle(0.0)
        running = [asyncio.create_task(ask(drain, scope("POST", "/v1/completions"))) for _ in range(3)]
        await asyncio.sleep(0)
        assert not await drain.wait_until_idle(0.05)
        end.set()
        assert await drain.wait_until_idle(5.0)
        await asyncio.gather(*running)

    asyncio.run(run())
