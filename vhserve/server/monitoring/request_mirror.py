"""Takes a copy of chosen requests and their answers on the way, without holding either up.

Owns the choice and the copying. Does not know what copies are for.
"""

import random
import time
from collections.abc import Callable
from typing import Any, Final

from vhserve.server.monitoring.exchange import Exchange
from vhserve.server.monitoring.in_process_client import asked_inside

PATHS: Final = ("/chat/completions", "/completions")
"""Routes under `/v1` whose answers can be compared."""

_MOST_ANSWERED: Final = 1 << 20
"""Bytes of an answer beyond which it is not kept."""


class Tap:
    """Copies a share of all requests that are answered with status 200.

    Parameters
    ----------
    app
        What answers.
    fraction
        Share of requests, 0 to 1.
    offer
        Called with each copy, after the answer has gone out.
    """

    def __init__(self, app: Any, fraction: float, offer: Callable[[Exchange], None]) -> None:
        self.app = app
        self.fraction = fraction
        self.offer = offer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = _path(scope)
        if path is None or asked_inside.get() or random.random() >= self.fraction:
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        asked: list[bytes] = []
        answered: list[bytes] = []
        kept, status, ended = 0, 0, None

        async def copying_receive() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                asked.append(message.get("body", b""))
            return message

        async def copying_send(message: Any) -> None:
            nonlocal kept, status, ended
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                kept += len(message.get("body", b""))
                if kept <= _MOST_ANSWERED:
                    answered.append(message.get("body", b""))
                if not message.get("more_body", False):
                    ended = time.perf_counter()

        await self.app(scope, copying_receive, copying_send)
        if status == 200 and ended is not None and kept <= _MOST_ANSWERED:
            self.offer(Exchange(path, b"".join(asked), b"".join(answered), ended - started))


def _path(scope: Any) -> str | None:
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return next((route for route in PATHS if path == f"/v1{route}"), None)
