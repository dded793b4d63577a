"""Middleware for `vhserve serve --middleware`: vLLM cancels the task that reads its engine's outputs a second late.

On SIGTERM vLLM closes its engine client in a thread, and then cancels that task in the event loop. Which of both the
task sees first is up to the machine's scheduler; with this class in the server it is always the closed client.
"""

import time
from typing import Any

DELAY = 1.0
"""Seconds; the event loop takes less than a tenth of that to close the client."""


class LateCancellation:
    """Does nothing to requests; an API server builds it once, at its start."""

    def __init__(self, app: Any) -> None:
        from vllm.v1.engine import async_llm

        self.app = app
        stock = async_llm.cancel_task_threadsafe

        def late(task: Any) -> None:
            time.sleep(DELAY)
            stock(task)

        async_llm.cancel_task_threadsafe = late

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
