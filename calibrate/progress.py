"""A progress bar on standard error, with rate and time left.

Knows rich; does not know what is counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Advance(Protocol):
    """Says that some more are done."""

    def __call__(self, done: int) -> None: ...


class _Rate(ProgressColumn):
    """How many a second; of this run only, when it continues another."""

    def render(self, task: Task) -> Text:
        done, seconds = task.completed - task.fields["before"], task.finished_time or task.elapsed
        return Text(f"{done / seconds:.1f}/s" if done and seconds else "", style="progress.data.speed")


@contextmanager
def progress_bar(what: str, total: int, done: int = 0, *, shown: bool = True) -> Iterator[Advance]:
    """Show a bar while a context lasts; yields what advances it.

    Parameters
    ----------
    what
        Stands before the bar.
    total, done
        How many there are, and how many were done before.
    shown
        Whether to show it at all.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(what, total=total, completed=done, before=done)
        yield lambda done: progress.advance(task, done)
