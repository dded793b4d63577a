"""Whether an engine has room for one more request that nobody waits for.

Owns what the latest statistics of the engines say of their queues. Written by `stat_logger`, read by the canary.
"""

import time
from typing import Final

_FRESH_SECONDS: Final = 2.0
"""An engine that works tells its queue every step; one that was silent for so long is idle, or tells another server."""

_waiting: dict[int, tuple[int, float]] = {}


def told(engine: int, waiting: int) -> None:
    """Note how many requests wait in an engine."""
    _waiting[engine] = (waiting, time.monotonic())


def is_free() -> bool:
    """Whether no user's request waits, as far as this process has been told."""
    since = time.monotonic() - _FRESH_SECONDS
    return not any(waiting and at > since for waiting, at in _waiting.values())
