"""By what a server knows a picture again: by its content, not by the `uuid` that a client gives it.

Owns the middleware that makes an API server do so from its start. Does not know how vLLM's caches work.
"""

from typing import Any

from vhserve.compat.prompts import ignore_client_uuids


class ContentIdentity:
    """ASGI middleware; a server has it unless `ServerSettings.trust_client_uuids`.

    It acts on the first ASGI scope, which is the lifespan, as `PlanMetrics` does.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.is_set_up = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not self.is_set_up and "app" in scope:
            self.is_set_up = True
            ignore_client_uuids(scope["app"].state.engine_client.renderer)
        await self.app(scope, receive, send)
