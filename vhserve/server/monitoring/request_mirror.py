"""Copies a share of requests and their responses as they pass, without delaying either.

Owns the sampling and the copying. Does not know what the copies are for.
"""

import random
import time
from collections.abc import Callable
from typing import Any, Final

from vhserve.server.monitoring.exchange import Exchange
from vhserve.server.monitoring.in_process_client import is_internal

PATHS: Final = ("/chat/completions", "/completions")
"""Routes under `/v1` whose responses can be compared."""

_MAX_RESPONSE_BYTES: Final = 1 << 20
"""Longer responses are not copied."""


class RequestMirror:
    """ASGI application that wraps another and copies a share of the exchanges with status 200.

    Parameters
    ----------
    app
        The application that responds.
    fraction
        Share of requests to copy, 0 to 1.
    offer
        Called with each copy, after the response has been sent.
    """

    def __init__(self, app: Any, fraction: float, offer: Callable[[Exchange], None]) -> None:
        self.app = app
        self.fraction = fraction
        self.offer = offer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = _path(scope)
        if path is None or is_internal.get() or random.random() >= self.fraction:
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request: list[bytes] = []
        response: list[bytes] = []
        kept, status, ended = 0, 0, None

        async def copying_receive() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                request.append(message.get("body", b""))
            return message

        async def copying_send(message: Any) -> None:
            nonlocal kept, status, ended
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                kept += len(message.get("body", b""))
                if kept <= _MAX_RESPONSE_BYTES:
                    response.append(message.get("body", b""))
                if not message.get("more_body", False):
                    ended = time.perf_counter()

        await self.app(scope, copying_receive, copying_send)
        if status == 200 and ended is not None and kept <= _MAX_RESPONSE_BYTES:
            self.offer(Exchange(path, b"".join(request), b"".join(response), ended - started))


def _path(scope: Any) -> str | None:
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return next((route for route in PATHS if path == f"/v1{route}"), None)
