"""Progress on standard error, with rate and time left: a bar on a terminal, a line now and then in a log.

Knows rich; does not know what is counted.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY: Final = 10.0
"""Seconds between two lines in a log."""


_MEGA: Final = 1_000_000


class Advance(Protocol):
    """Advances the progress by `done`."""

    def __call__(self, done: int) -> None: ...


@contextmanager
def progress_bar(description: str, total: int, done: int = 0, *, shown: bool = True) -> Iterator[Advance]:
    """Show progress while a context lasts; yields the function that advances it.

    Parameters
    ----------
    description
        Stands in front.
    total, done
        How many there are, and how many were done before.
    shown
        Whether to show it at all.
    """
    console = Console(stderr=True, highlight=False)
    if shown and not console.is_terminal:
        yield _Lines(console, description, total, done).advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task(description, total=total, completed=done, before=done)
        yield lambda done: progress.advance(task, done)


@contextmanager
def hashing_bar(total: int) -> Iterator[Advance]:
    """Show how many of `total` bytes of weights have been hashed; what it yields takes bytes, in any thread."""
    lock, read, shown = Lock(), 0, 0
    with progress_bar("hashing weights, MB", max(1, total // _MEGA)) as advance:

        def add(done: int) -> None:
            nonlocal read, shown
            with lock:
                read += done
                advance(read // _MEGA - shown)
                shown = read // _MEGA

        yield add


class _Rate(ProgressColumn):
    """Rate per second, of what was done since the start; not of what an interrupted run had done."""

    def render(self, task: Task) -> Text:
        done, seconds = task.completed - task.fields["before"], task.finished_time or task.elapsed
        return Text(f"{done / seconds:.1f}/s" if done and seconds else "", style="progress.data.speed")


class _Lines:
    """Progress as lines: one at the first advance, then every `LINE_EVERY` seconds, one at the end."""

    def __init__(self, console: Console, what: str, total: int, done: int) -> None:
        self._console, self._what, self._total = console, what, total
        self._done = self._before = done
        self._start, self._shown_at = time.monotonic(), -float("inf")

    def advance(self, done: int) -> None:
        self._done += done
        now = time.monotonic()
        if self._done < self._total and now - self._shown_at < LINE_EVERY:
            return
        self._shown_at = now
        rate = (self._done - self._before) / max(now - self._start, 1e-9)
        left = (self._total - self._done) / rate
        line = f"{self._what} {self._done}/{self._total}, {rate:.1f}/s, {left:.0f} s left"
        self._console.print(line, markup=False, soft_wrap=True)
