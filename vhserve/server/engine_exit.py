"""Whether a server ended because its engine did, so that the command can say so by its exit code.

Owns the look at the engine's processes as the server ends. Knows ASGI; what it looks at is in `compat`.
"""

from typing import Any

from vhserve.compat import engine_failed

FAILED = 1
"""Exit code: vLLM itself ends with 0, which service managers take for a wish."""

_failed = False


class Ending:
    """ASGI middleware; looks once, when the server tells that it ends (ASGI's lifespan)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def watched_receive() -> Any:
            global _failed
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                _failed = engine_failed(scope["app"].state.engine_client)
            return message

        await self.app(scope, watched_receive, send)


def exit_code() -> int:
    """Of this process, after its server has ended."""
    return FAILED if _failed else 0
