"""The shadow: repeats completed requests on a reference, one at a time, and compares the replies.

Owns the queue in front of the reference, the back-off while the reference is down, and the metrics. Does not know how
requests are copied.
"""

import asyncio
from collections import deque
from typing import Any, Final, Literal

from vllm.logger import init_logger

from vhserve.server.metric_definitions import collector
from vhserve.server.monitoring.exchange import Exchange, comparable_request, reply_text
from vhserve.server.monitoring.reference import Reference, ReferenceDown, ReferenceRefused

Outcome = Literal["agree", "differ", "failed", "skipped"]

OUTCOMES: Final = ("agree", "differ", "failed", "skipped")

MAX_QUEUED: Final = 16
"""Exchanges that may wait; further ones are skipped."""

MAX_QUEUED_BYTES: Final = 64 << 20
"""Bytes of all that wait."""

_BACKOFF: Final = 1.0
_MAX_BACKOFF: Final = 60.0
"""Seconds between checks of a reference that is down: doubled from the one to the other."""

logger = init_logger("vllm.vhserve")  # below vLLM's, whose level and format users set


class Shadow:
    """Compares exchanges with a reference in the background; `offer` never blocks."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.queue: deque[Exchange] = deque()
        self.bytes = 0
        self.up: bool | None = None  # unknown before the first check
        self.backoff = _BACKOFF
        self.arrived = asyncio.Event()
        for outcome in OUTCOMES:
            collector("vhserve_shadow_requests_total").labels(outcome=outcome)

    def offer(self, exchange: Exchange) -> None:
        """Queue an exchange, or skip it where the reference is down or too slow."""
        if not self.up or len(self.queue) >= MAX_QUEUED or self.bytes + exchange.size > MAX_QUEUED_BYTES:
            self._count("skipped")
            return
        self.queue.append(exchange)
        self.bytes += exchange.size
        self.arrived.set()

    async def run_forever(self) -> None:
        """Compare until cancelled."""
        while True:
            try:
                await self.reference.check()
                self._set_up(True)
                await self._compare_queued()
            except ReferenceDown as error:
                self._set_up(False, str(error))
                self._skip_queued()
                await asyncio.sleep(self.backoff)
                self.backoff = min(2 * self.backoff, _MAX_BACKOFF)

    async def _compare_queued(self) -> None:
        while True:
            while not self.queue:
                self.arrived.clear()
                await self.arrived.wait()
            exchange = self.queue.popleft()
            self.bytes -= exchange.size
            try:
                self._count(await self._compare(exchange))
            except ReferenceDown:
                self._count("failed")
                raise

    async def _compare(self, exchange: Exchange) -> Outcome:
        # In threads: a body with pictures takes long to parse, and users' streams run in this loop.
        request = await asyncio.to_thread(comparable_request, exchange)
        here = await asyncio.to_thread(reply_text, exchange.response_body)
        if request is None or here is None:
            return "skipped"
        try:
            response, seconds = await self.reference.send(exchange.path, request)
        except ReferenceRefused:
            return "failed"
        self.backoff = _BACKOFF
        there = reply_text(response)
        if there is None:
            return "failed"
        latency = collector("vhserve_shadow_request_seconds")
        latency.labels(arm="pruned").observe(exchange.seconds)
        latency.labels(arm="reference").observe(seconds)
        return "agree" if here == there else "differ"

    def _skip_queued(self) -> None:
        for _ in self.queue:
            self._count("skipped")
        self.queue.clear()
        self.bytes = 0

    def _set_up(self, up: bool, why: str = "") -> None:
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
