"""Queue lengths of the engines, as this API server last saw them.

Owns the latest length for each engine and its age. Written by `stat_logger`, read by the canary; knows neither.
"""

import time
from typing import Final

_FRESH_SECONDS: Final = 2.0
"""A busy engine reports every step; one without a report for so long is idle, or reports to another API server."""

_waiting: dict[int, tuple[int, float]] = {}


def report(engine: int, waiting: int) -> None:
    """Record the number of requests that wait in an engine, by the engine's index."""
    _waiting[engine] = (waiting, time.monotonic())


def has_capacity() -> bool:
    """Whether no request waits in any engine that reports to this process, so that one more would delay nobody."""
    since = time.monotonic() - _FRESH_SECONDS
    return not any(waiting and at > since for waiting, at in _waiting.values())
