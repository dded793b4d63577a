"""Progress of requests on stderr: done, rate, time left, and failures as they come.

Knows the terminal only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from vhserve.evaluation.results import Answer


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")


@contextmanager
def shown(name: str, total: int) -> Iterator[Callable[[Answer], None]]:
    """Show a bar while answers come in; yields what to call with each of them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        failed = 0

        def advance(answer: Answer) -> None:
            nonlocal failed
            failed += answer.outcome == "error"
            progress.update(task, advance=1, description=f"{name} ({failed} failed)" if failed else name)

        yield advance
