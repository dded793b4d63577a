"""Counts requests that end outside the engine: refused, failed, or aborted by their client.

Owns the rule by which a response counts; `stat_logger` counts what the engine ends itself. Knows ASGI, not vLLM.
"""

from typing import Any, Final

from vhserve.server.metric_definitions import OUTCOMES, collector

GENERATING: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/inference/v1/generate",
)
"""Routes whose requests are counted, POST only."""

_UNAVAILABLE: Final = 503


def generates(scope: Any) -> bool:
    """Whether an ASGI scope is of a request for tokens."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.rstrip("/") in GENERATING


class RequestMetrics:
    """ASGI middleware; outermost, so that it sees what every other one refuses.

    Each request counts here at most once: as an error when its status is 5xx or its stream ends in an error event, as
    refused when its status is 4xx or 503, as an abort when its client goes away before the answer is complete.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.counter = collector("vhserve_requests_total")
        for label in OUTCOMES:
            self.counter.labels(outcome=label)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not generates(scope):
            await self.app(scope, receive, send)
            return
        outcome = _RequestOutcome()

        async def watched_receive() -> Any:
            message = await receive()
            outcome.receive(message)
            return message

        async def watched_send(message: Any) -> None:
            outcome.send(message)
            await send(message)

        try:
            await self.app(scope, watched_receive, watched_send)
        except Exception:
            outcome.failed()
            raise
        finally:
            if outcome.label:
                self.counter.labels(outcome=outcome.label).inc()


class _RequestOutcome:
    """Outcome of one request by its ASGI messages; the first cause counts."""

    def __init__(self) -> None:
        self.label: str | None = None
        self.complete = False

    def receive(self, message: Any) -> None:
        # Once the response is complete, a disconnect is not an abort.
        if message["type"] == "http.disconnect" and not self.complete:
            self.label = self.label or "abort"

    def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            if status == _UNAVAILABLE or 400 <= status < 500:
                self.label = self.label or "refused"
            elif status >= 500:
                self.label = self.label or "error"
        elif message["type"] == "http.response.body":
            if message.get("body", b"").startswith((b'data: {"error"', b"event: error")):
                self.label = self.label or "error"
            self.complete = not message.get("more_body", False)

    def failed(self) -> None:
        self.label = self.label or "error"
