"""The shadow: repeats answered requests on a reference, one at a time, and compares the answers.

Owns the queue between users' requests and the reference, when to leave the reference alone, and its series.
"""

import asyncio
from collections import deque
from typing import Any, Final, Literal

from vllm.logger import init_logger

from vhserve.server.metric_definitions import collector
from vhserve.server.monitoring.exchange import Exchange, repeatable, text_of
from vhserve.server.monitoring.reference import Reference, ReferenceDown, ReferenceRefused

Outcome = Literal["agree", "differ", "failed", "skipped"]

OUTCOMES: Final = ("agree", "differ", "failed", "skipped")

MOST_QUEUED: Final = 16
"""Exchanges that may wait; further ones are skipped."""

MOST_BYTES: Final = 64 << 20
"""Bytes that they may hold together."""

_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds to leave a reference alone that does not answer: doubled from the one to the other."""

logger = init_logger("vllm.vhserve")  # below vLLM's, whose level and format users set


class Shadow:
    """Takes exchanges at any time, and never makes who brings them wait."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.queue: deque[Exchange] = deque()
        self.bytes = 0
        self.up: bool | None = None  # not known before the first look
        self.pause = _PAUSE
        self.came = asyncio.Event()
        for outcome in OUTCOMES:
            collector("vhserve_shadow_requests_total").labels(outcome=outcome)

    def offer(self, exchange: Exchange) -> None:
        """Queue an exchange, or skip it where the reference is down or too slow."""
        if not self.up or len(self.queue) >= MOST_QUEUED or self.bytes + exchange.size > MOST_BYTES:
            self._count("skipped")
            return
        self.queue.append(exchange)
        self.bytes += exchange.size
        self.came.set()

    async def run_forever(self) -> None:
        """Compare until cancelled."""
        while True:
            try:
                await self.reference.look()
                self._tell(True)
                await self._work()
            except ReferenceDown as error:
                self._tell(False, str(error))
                self._drop()
                await asyncio.sleep(self.pause)
                self.pause = min(2 * self.pause, _LONGEST_PAUSE)

    async def _work(self) -> None:
        while True:
            while not self.queue:
                self.came.clear()
                await self.came.wait()
            exchange = self.queue.popleft()
            self.bytes -= exchange.size
            try:
                self._count(await self._compare(exchange))
            except ReferenceDown:
                self._count("failed")
                raise

    async def _compare(self, exchange: Exchange) -> Outcome:
        # In threads: a body with pictures takes long to parse, and users' streams run in this loop.
        request = await asyncio.to_thread(repeatable, exchange)
        here = await asyncio.to_thread(text_of, exchange.answered)
        if request is None or here is None:
            return "skipped"
        try:
            answered, seconds = await self.reference.ask(exchange.path, request)
        except ReferenceRefused:
            return "failed"
        self.pause = _PAUSE
        there = text_of(answered)
        if there is None:
            return "failed"
        latency = collector("vhserve_shadow_request_seconds")
        latency.labels(arm="pruned").observe(exchange.seconds)
        latency.labels(arm="reference").observe(seconds)
        return "agree" if here == there else "differ"

    def _drop(self) -> None:
        for _ in self.queue:
            self._count("skipped")
        self.queue.clear()
        self.bytes = 0

    def _tell(self, up: bool, why: str = "") -> None:
        collector("vhserve_shadow_up").set(up)
        if up != self.up:
            self.up = up
            if up:
                logger.info("Shadow: %s answers", self.reference.url)
            else:
                logger.warning("Shadow: %s does not answer (%s); it is left alone", self.reference.url, why)

    def _count(self, outcome: Outcome) -> None:
        counter: Any = collector("vhserve_shadow_requests_total")
        counter.labels(outcome=outcome).inc()
