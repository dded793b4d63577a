"""That a server which is told to end while it starts does end, and soon.

Does not know what a start consists of. Importing it is cheap.
"""

import _thread
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

GRACE: Final = 5.0
"""Seconds that a server gets which is told to end while it starts; vLLM gives the processes that it ends as many."""

_Handler = Callable[[int, FrameType | None], Any]


class Signals:
    """Python's `signal` for a module of vLLM's; what is told to end before `started` ends `GRACE` later at the latest.

    Attributes
    ----------
    started
        Whether the server has started, so that it may drain.
    """

    def __init__(self) -> None:
        self.started = False

    def __getattr__(self, name: str) -> Any:
        return getattr(signal, name)

    def signal(self, number: int, handler: _Handler) -> Any:
        """Set a handler, as `signal.signal` does."""

        def told(number: int, frame: FrameType | None) -> Any:
            if not self.started:
                # No `threading`, whose locks the interrupted code may hold.
                _thread.start_new_thread(_end_after, (GRACE, number))
            return handler(number, frame)

        return signal.signal(number, told)


def _end_after(seconds: float, number: int) -> None:
    time.sleep(seconds)
    with contextlib.suppress(Exception):
        os.write(2, b"vhserve: warning: told to end while it started, the server was ended after %.0f s\n" % seconds)
        for child in multiprocessing.active_children():  # on Linux all of them end with this process (`processes`)
            child.kill()
    os._exit(128 + number)


def end_soon_while_starting() -> None:
    """Let a server that gets SIGTERM or Ctrl-C while it starts end within seconds; call it before vLLM's server runs.

    Symptom
        A server that is told to end while it starts stays for minutes, with its engine.
    Cause
        vLLM's handlers raise an exception in the main thread, once. What it meets may swallow it (a callback of the
        interpreter's), or loses hold of processes that were being started: Python waits for those as it exits, and an
        engine waits five minutes for the server that it is to say hello to. With one API server, Ctrl-C is put off
        until the engine has started.
    Removal
        vLLM ends all its processes within seconds of a signal while it starts.

    With one API server the event loop takes both signals over as the server begins to listen, and `before_shutdown` is
    what happens then. With several, the process that starts them keeps its handlers.
    """
    from vllm.entrypoints.cli import serve
    from vllm.entrypoints.launchers.api_server import entry

    several: Any = serve
    one: Any = entry
    signals = Signals()
    several.signal = one.signal = signals
    stock = several.wait_for_completion_or_failure

    def wait_for_completion_or_failure(*args: Any, **options: Any) -> Any:
        signals.started = True
        return stock(*args, **options)

    several.wait_for_completion_or_failure = wait_for_completion_or_failure
    signals.signal(signal.SIGINT, signal.default_int_handler)
