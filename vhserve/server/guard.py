"""Request checks in front of vLLM's routes, and one format for all error responses.

Owns the limit on the size of a request body (those of its parameters are in `parameter_limits`), the API key check on
every route that changes or computes something, and that each JSON error has the OpenAI API's format, with `Retry-After`
where the server is full. Pure ASGI; knows neither vLLM nor plans. Which of vLLM's own settings are stricter is in
`hardening`.
"""

import hmac
import json
from argparse import Namespace
from http import HTTPStatus
from typing import Any

from vhserve.server.api_keys import api_keys
from vhserve.server.error_responses import RETRY_AFTER, error_body, send_error, send_error_early
from vhserve.server.parameter_limits import violation
from vhserve.server.settings import settings_of


class Guard:
    """ASGI middleware; its limits are in `ServerSettings`."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        settings = settings_of(scope["app"])
        if _is_unauthorized(scope, scope["app"].state.args):
            await send_error(send, HTTPStatus.UNAUTHORIZED, "the API key is missing or wrong")
            return
        if (body := await _read_body(scope, receive, settings.max_request_bytes)) is None:
            too_long = f"the request's body is longer than {settings.max_request_bytes} bytes"
            await send_error_early(send, receive, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_long)
            return
        if found := violation(_parsed(body), settings.parameter_limits):
            await send_error(send, HTTPStatus.BAD_REQUEST, str(found), parameter=found.field)
            return
        unread = iter(body)

        async def replay() -> Any:
            return next(unread, None) or await receive()

        await self.app(scope, replay, _ErrorFormatter(send, body, settings.max_sequences))


def _is_unauthorized(scope: Any, arguments: Namespace) -> bool:
    """Whether a request needs an API key and has none, or a wrong one.

    vLLM requires it under `/v1` and the like, but not on its other routes, some of which generate (`/invocations`) or
    change the server. Read-only routes, such as `/health` and `/metrics`, stay open.
    """
    keys = api_keys(arguments)
    if not keys or scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return False
    scheme, _, given = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
    matches = [hmac.compare_digest(given, key.encode()) for key in keys]  # every one: the time must not tell which
    return scheme.lower() != b"bearer" or not any(matches)


async def _read_body(scope: Any, receive: Any, limit: int) -> list[Any] | None:
    """The ASGI messages of a body, or None as soon as it is longer than `limit` bytes.

    It is read before vLLM sees the request, because vLLM answers a failed read with status 400.
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


class _ErrorFormatter:
    """Passes a response on; a JSON error is buffered and put into the OpenAI API's format first."""

    def __init__(self, send: Any, request_body: list[Any], max_sequences: int) -> None:
        self.send = send
        self.request_body = request_body
        self.max_sequences = max_sequences
        self.held_start: Any = None  # of an error whose body is not complete
        self.body = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            kind = dict(message.get("headers", ())).get(b"content-type", b"")
            if kind.startswith(b"application/json"):
                self.held_start = message
                return
        elif self.held_start is not None and message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            if message.get("more_body", False):
                return
            start, self.held_start = self.held_start, None
            status, body = self._rewrite(start["status"])
            start = _with_header({**start, "status": status}, b"content-length", str(len(body)).encode())
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                start = _with_header(start, b"retry-after", RETRY_AFTER)
            await self.send(start)
            message = {**message, "body": body}
        await self.send(message)

    def _rewrite(self, status: int) -> tuple[int, bytes]:
        # vLLM checks whether n sequences fit in its queue before it checks whether n is allowed at all.
        if status == HTTPStatus.SERVICE_UNAVAILABLE and _requested_sequences(self.request_body) > self.max_sequences:
            return 400, error_body(HTTPStatus.BAD_REQUEST, f"n must be at most {self.max_sequences}", "n")
        return status, _openai_error(status, self.body)


def _parsed(request_body: list[Any]) -> Any:
    """A request's JSON body; None where it is none, which vLLM refuses."""
    try:
        return json.loads(b"".join(message.get("body", b"") for message in request_body))
    except (ValueError, RecursionError):
        return None


def _requested_sequences(request_body: list[Any]) -> int:
    """The `n` of a request's JSON body; 1 where it has none."""
    request = _parsed(request_body)
    n = request.get("n") if isinstance(request, dict) else None
    return n if isinstance(n, int) else 1


def _with_header(start: Any, name: bytes, value: bytes) -> Any:
    others = [(key, other) for key, other in start.get("headers", ()) if key.lower() != name]
    return {**start, "headers": [*others, (name, value)]}


def _openai_error(status: int, body: bytes) -> bytes:
    try:
        parsed = json.loads(body)
    except ValueError:
        return body
    error = parsed.get("error", parsed.get("detail")) if isinstance(parsed, dict) else parsed
    if isinstance(error, dict) and "message" in error:
        return body
    return error_body(HTTPStatus(status), error if isinstance(error, str) else HTTPStatus(status).phrase)
