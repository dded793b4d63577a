"""Progress of a load test on standard error: a bar on a terminal, a line now and then in a log.

Owns its text: what has ended, how many a second, what failed, and how long it still takes at most.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from calibrate.runs.progress import LINE_EVERY
from vhserve.loadtest.turn import Turn


class TurnProgress:
    """Base of both displays. `total` is the seconds that all turns take at most."""

    def __init__(self, total: float) -> None:
        self.total, self.passed = total, 0.0
        self._turn_started = time.monotonic()

    def begin(self, label: str, seconds: float) -> None:
        """A turn starts, of so many seconds."""
        self._label, self._seconds, self._turn_started = label, seconds, time.monotonic()

    def end(self) -> None:
        """The turn is over."""
        self.passed += self._seconds

    def show(self, turn: Turn) -> None:
        """Display the progress of a turn."""

    def seconds_done(self) -> float:
        """Seconds of all turns that are over."""
        return self.passed + min(self._seconds, time.monotonic() - self._turn_started)

    def description(self, turn: Turn) -> str:
        """Progress of a turn in one line: requests so far, requests per second, failures."""
        failed = sum(one.outcome == "failed" for one in turn.observed)
        if not turn.observed:
            return f"{self._label}: warm-up, {turn.warmed} requests"
        rate = len(turn.observed) / max(time.monotonic() - min(one.due for one in turn.observed), 1e-9)
        return f"{self._label}: {len(turn.observed)} requests, {rate:.1f}/s, {failed} failed"


class _Bar(TurnProgress):
    def __init__(self, total: float, progress: Progress) -> None:
        super().__init__(total)
        self._progress, self._task = progress, progress.add_task("starting", total=total)

    def show(self, turn: Turn) -> None:
        self._progress.update(self._task, completed=self.seconds_done(), description=self.description(turn))


class _Lines(TurnProgress):
    def __init__(self, total: float, console: Console) -> None:
        super().__init__(total)
        self._console, self._shown_at = console, time.monotonic()

    def show(self, turn: Turn) -> None:
        now = time.monotonic()
        if now - self._shown_at < LINE_EVERY:
            return
        self._shown_at = now
        line = f"{self.description(turn)}, {self.total - self.seconds_done():.0f} s left"
        self._console.print(line, markup=False, soft_wrap=True)


@contextmanager
def turn_progress(total: float) -> Iterator[TurnProgress]:
    """Show progress while a context lasts."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Lines(total, console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bar(total, progress)
