"""Does the engine still answer while it generates structured outputs? `/health` says when it does not.

Owns what counts as stuck: no output for long, and no answer when it is asked for one. What a grammar costs can only be
tried out (`grammar_worker`); an engine that found a worse place in one can be told from an idle one by asking alone.
Does not know grammars.
"""

import asyncio
import contextlib
import time
from typing import Any, Final

from vhserve.compat.api_server import after_outputs, running_requests

STUCK_SECONDS: Final = 120.0
"""Longest that an engine may put nothing out before it is asked; a step of a large model on CPUs may take a minute."""

ANSWER_SECONDS: Final = 2.0
"""Longest that `/health` waits for the engine's answer."""


class EngineSilence:
    """What an API server knows of its engine's outputs, from the first structured output on that it asks for."""

    def __init__(self, engine_client: Any) -> None:
        self.engine_client = engine_client
        self.structured: set[str] = set()
        self.heard = time.monotonic()
        self.question: asyncio.Task[None] | None = None
        after_outputs(engine_client, self.hear)

    def ask(self, request: str) -> None:
        """A structured output is about to be asked for."""
        if not self.structured:
            self.heard = time.monotonic()
        self.structured.add(request)

    def hear(self) -> None:
        """The engine has put something out."""
        self.heard = time.monotonic()
        self.structured &= set(running_requests(self.engine_client))

    async def is_stuck(self) -> bool:
        """Whether the engine has been silent for too long and does not answer either.

        A request whose client has left may be what it is stuck in, so that it counts until the engine is heard.
        """
        if not self.structured or time.monotonic() - self.heard < STUCK_SECONDS:
            return False
        if self.question is None or self.question.done():
            self.question = asyncio.create_task(self._ask_engine())
        answered, _ = await asyncio.wait({self.question}, timeout=ANSWER_SECONDS)
        return not answered

    async def _ask_engine(self) -> None:
        with contextlib.suppress(Exception):  # of a dead engine, which vLLM's own /health tells
            await self.engine_client.is_sleeping()
            self.hear()
