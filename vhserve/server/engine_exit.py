"""The exit code of a server whose engine process ended by itself.

Owns that the engine's processes are checked once: as the API server begins to end, by SIGTERM (`drain`) or as ASGI's
lifespan does. What ends later was stopped. The check itself is in `compat`.
"""

from typing import Any

from vhserve.compat.api_server import engine_failed

ENGINE_FAILED = 1
"""Exit code. vLLM itself exits with 0, so that service managers would not restart it."""

_failed: bool | None = None


def check(engine_client: Any) -> None:
    """Note whether an engine process of an API server has ended by itself; only the first call counts."""
    global _failed
    if _failed is None:
        _failed = engine_failed(engine_client)


class EngineExit:
    """ASGI middleware that checks the engine on the lifespan's shutdown event."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def watched_receive() -> Any:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                check(scope["app"].state.engine_client)
            return message

        await self.app(scope, watched_receive, send)


def exit_code() -> int:
    """Exit code for this process, after its server has ended: 0, or `ENGINE_FAILED`."""
    return ENGINE_FAILED if _failed else 0
