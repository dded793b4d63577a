"""Says how long a server took to start, once, when it takes requests.

Owns the line and when it is printed. Does not know what the time went into.
"""

import time
from typing import Any

from vhserve.compat.api_server import api_server_rank
from vhserve.notes import print_note
from vhserve.server.settings import settings_of


class StartTime:
    """ASGI middleware. It acts when the application says that it has started, which vLLM's does behind its engines."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" or api_server_rank(scope["app"].state.vllm_config) > 0:
            await self.app(scope, receive, send)
            return

        async def watched_send(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                print_note(f"the server took {time.monotonic() - settings_of(scope['app']).started:.1f} s to start")

        await self.app(scope, receive, watched_send)
