"""Middleware that does one thing as an API server starts, before it takes its first request.

Owns when that is: at the first ASGI scope, which is the lifespan. It is a middleware because vLLM builds those in the
process of every API server, which has its settings, its engine's client and its registry of metrics; vLLM's other hooks
either run in another process or change what a server without a plan does. Does not know what is done.
"""

from typing import Any


class AtStart:
    """ASGI middleware; subclasses say what is done."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.is_done = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not self.is_done and "app" in scope:
            self.is_done = True
            self.act(scope["app"])
        await self.app(scope, receive, send)

    def act(self, app: Any) -> None:
        """Do it, once, to vLLM's application."""
        raise NotImplementedError
