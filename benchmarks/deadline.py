"""When a benchmark's command is to begin nothing more. Does not know what it measures."""

import time
from typing import Final

STARTED: Final = time.monotonic()
"""When this was imported: soon after the command began."""


class OutOfTime(Exception):
    """The time was over before every arm had its turn at everything; ends a benchmark as one that is not done."""


def over(seconds: float | None) -> bool:
    """Whether the command has taken so many seconds; never, where there is no limit."""
    return seconds is not None and time.monotonic() - STARTED > seconds
