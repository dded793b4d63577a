"""Ctrl-C and SIGTERM, held back until a safe place.

Owns the handlers while a context lasts. A second signal stops at once. Does not know what is being interrupted.
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
    """A run was stopped by a signal, in a safe place.

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
    """Remembers a signal until somebody asks."""

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
        if number == signal.SIGINT:  # somebody sits there and waits
            os.write(2, b"\nstopping after this batch; Ctrl-C once more stops at once\n")


@contextmanager
def held_back() -> Iterator[Interrupts]:
    """Hold Ctrl-C and SIGTERM back; outside the main thread, where Python sends none, nothing is done."""
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
