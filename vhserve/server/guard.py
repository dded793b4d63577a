"""What a server of `vhserve serve` refuses before vLLM reads it, and how its refusals look.

Owns the limit of a request's body, that no route works without the key if there is one, and that every JSON error is
the OpenAI protocol's, with `Retry-After` where the server is full. Pure ASGI; knows neither vLLM nor plans. Which
settings of vLLM's are stricter is in `hardening`.
"""

import asyncio
import hmac
import json
import os
import time
from http import HTTPStatus
from typing import Any, Final

RETRY_AFTER: Final = b"1"
"""Seconds after which to ask a full server again: a queue of short answers moves on quickly."""

_LINGER_SECONDS: Final = 5.0
"""How long to read on after a body was refused: a client that still sends would see a reset and not the answer."""


class Guard:
    """ASGI middleware; `vhserve_max_request_bytes` and `vhserve_max_sequences` of the server's arguments limit it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arguments = scope["app"].state.args
        if _lacks_key(scope, arguments):
            await _refuse(send, HTTPStatus.UNAUTHORIZED, "the API key is missing or wrong")
            return
        if (body := await _read(scope, receive, arguments.vhserve_max_request_bytes)) is None:
            await _too_large(send, receive, arguments.vhserve_max_request_bytes)
            return
        unread = iter(body)

        async def replay() -> Any:
            return next(unread, None) or await receive()

        await self.app(scope, replay, _Answer(send, body, arguments.vhserve_max_sequences))


def _lacks_key(scope: Any, arguments: Any) -> bool:
    """Whether a request must bring a key and does not.

    vLLM asks for it under `/v1` and the like, but not for its other routes, some of which generate as well
    (`/invocations`) or change the server. Those that only look, such as `/health` and `/metrics`, stay open.
    """
    keys = [key for key in (arguments.api_key or [os.environ.get("VLLM_API_KEY")]) if key]
    if not keys or scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return False
    scheme, _, given = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
    matches = [hmac.compare_digest(given, key.encode()) for key in keys]  # all of them: time must not tell which
    return scheme.lower() != b"bearer" or not any(matches)


async def _refuse(send: Any, status: HTTPStatus, message: str) -> None:
    body = _error(status, message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read(scope: Any, receive: Any, limit: int) -> list[Any] | None:
    """The messages of a body, or None as soon as it is longer than the limit.

    All of it is read first, because the server reads all of it anyway, and answers a reading that fails with 400.
    """
    headers = dict(scope["headers"])
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        return None
    if declared in (b"", b"0") and b"transfer-encoding" not in headers:
        return []
    messages, size = [], 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > limit:
            return None
        if not message.get("more_body", False):
            return messages


async def _too_large(send: Any, receive: Any, limit: int) -> None:
    body = _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request's body is longer than {limit} bytes")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    deadline = time.monotonic() + _LINGER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            break
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            break
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Answer:
    """Sends a response on, after making a JSON error one of the OpenAI protocol."""

    def __init__(self, send: Any, asked: list[Any], max_sequences: int) -> None:
        self.send = send
        self.asked = asked
        self.max_sequences = max_sequences
        self.held: Any = None  # the start of an error whose body is not complete
        self.body = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            kind = dict(message.get("headers", ())).get(b"content-type", b"")
            if kind.startswith(b"application/json"):
                self.held = message
                return
        elif self.held is not None and message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            if message.get("more_body", False):
                return
            start, self.held = self.held, None
            status, body = self._refusal(start["status"])
            start = _with_header({**start, "status": status}, b"content-length", str(len(body)).encode())
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                start = _with_header(start, b"retry-after", RETRY_AFTER)
            await self.send(start)
            message = {**message, "body": body}
        await self.send(message)

    def _refusal(self, status: int) -> tuple[int, bytes]:
        # vLLM asks whether there is room for n sequences before it asks whether so many are allowed at all.
        if status == HTTPStatus.SERVICE_UNAVAILABLE and _sequences(self.asked) > self.max_sequences:
            return 400, _error(HTTPStatus.BAD_REQUEST, f"n must be at most {self.max_sequences}", "n")
        return status, _spoken(status, self.body)


def _sequences(asked: list[Any]) -> int:
    """How many sequences a request asks for, as far as its body says; 1 where it does not."""
    try:
        request = json.loads(b"".join(message.get("body", b"") for message in asked))
    except ValueError:
        return 1
    n = request.get("n") if isinstance(request, dict) else None
    return n if isinstance(n, int) else 1


def _with_header(start: Any, name: bytes, value: bytes) -> Any:
    others = [(key, said) for key, said in start.get("headers", ()) if key.lower() != name]
    return {**start, "headers": [*others, (name, value)]}


def _spoken(status: int, body: bytes) -> bytes:
    try:
        said = json.loads(body)
    except ValueError:
        return body
    error = said.get("error", said.get("detail")) if isinstance(said, dict) else said
    if isinstance(error, dict) and "message" in error:
        return body
    return _error(HTTPStatus(status), error if isinstance(error, str) else HTTPStatus(status).phrase)


def _error(status: HTTPStatus, message: str, parameter: str | None = None) -> bytes:
    error = {"message": message, "type": status.phrase, "param": parameter, "code": status.value}
    return json.dumps({"error": error}).encode()
