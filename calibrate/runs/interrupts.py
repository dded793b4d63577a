"""Ctrl-C and SIGTERM, deferred until the run is at a point where it can be continued.

Owns the signal handlers while a context lasts. A second signal stops at once. Does not know what is being interrupted.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):  # a kind of KeyboardInterrupt, which is no error either
    """A run was stopped by a signal, at a point from which it can be continued.

    Attributes
    ----------
    code
        Exit code that shells expect: 128 + signal.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number
        self.code = 128 + number


class Interrupts:
    """Records the first signal; `check` raises it."""

    def __init__(self) -> None:
        self.received: int | None = None

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self.received is not None:
            raise Stopped(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Stopped(number)
        self.received = number
        if number == signal.SIGINT:  # from a terminal, where the delay needs an explanation
            os.write(2, b"\nstopping after this batch; Ctrl-C once more stops at once\n")


@contextmanager
def defer_signals() -> Iterator[Interrupts]:
    """Defer SIGINT and SIGTERM; does nothing outside the main thread, which alone receives signals in Python."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts._receive) for number in SIGNALS}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
