"""How an API server ends after SIGTERM: it takes no new request, lets the running ones end, then lets the engine go.

Owns which requests run, what the others are told (503 with `Retry-After`, `/health` included), and how long that takes.
Pure ASGI; what vLLM does on the signal is in `compat`.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final

from vhserve.compat.api_server import abort_requests, before_shutdown, stop_reading_outputs
from vhserve.server import engine_exit
from vhserve.server.error_responses import RETRY_AFTER, send_error_early

logger = logging.getLogger("vllm.vhserve")

HEALTH: Final = ("/health", "/ping")
"""Routes by which load balancers see whether to send requests here."""

_READING: Final = ("GET", "HEAD", "OPTIONS")

_SERVICE_RESTART: Final = 1012
"""Close code of a WebSocket (RFC 6455's registry): the service ends, try again."""


class Drain:
    """ASGI middleware; around all that takes time, so that a request runs from its first byte to its last."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.draining = False
        self.running = 0
        self.idle = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._watching_start(scope["app"], send))
        elif self.draining:
            await self._answer_draining(scope, receive, send)
        else:
            self.running += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self.running -= 1
                if self.running == 0:
                    self.idle.set()

    def _watching_start(self, app: Any, send: Any) -> Any:
        async def watched_send(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                before_shutdown(app.state.engine_client, lambda seconds: self.drain(app.state, seconds))

        return watched_send

    async def _answer_draining(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _SERVICE_RESTART})
        elif scope["method"] in _READING and scope["path"].removeprefix(scope.get("root_path", "")) not in HEALTH:
            await self.app(scope, receive, send)
        else:
            ending = "the server is draining: it ends its running requests and takes no new ones; ask another server"
            headers = [(b"retry-after", RETRY_AFTER)]
            await send_error_early(send, receive, HTTPStatus.SERVICE_UNAVAILABLE, ending, headers)

    async def drain(self, state: Any, seconds: float) -> None:
        """Refuse new requests, wait for the running ones, abort what is left, and stop reading the engine's outputs.

        Parameters
        ----------
        state
            Of an API server's application.
        seconds
            Until the server is to have ended; all but the last few are the running requests'.
        """
        client = state.engine_client
        engine_exit.check(client)
        self.draining = True
        grace = min(3.0, seconds / 4)
        if not await self.wait_until_idle(seconds - grace):
            left = self.running
            await abort_requests(client)
            await self.wait_until_idle(grace / 2)
            logger.warning("drained for %.0f s; %d requests that still ran were aborted", seconds - grace, left)
            state.server.config.timeout_graceful_shutdown = 1  # one that is still sending its body would keep it
        await stop_reading_outputs(client)

    async def wait_until_idle(self, seconds: float) -> bool:
        """Whether no request runs any more, within that time."""
        if self.running == 0:
            return True
        self.idle.clear()
        try:
            await asyncio.wait_for(self.idle.wait(), seconds)
        except TimeoutError:
            return False
        return True
