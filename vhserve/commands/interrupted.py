"""What a command says that was interrupted and can be continued. Does not know what it was doing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def say_interrupted(out: Path) -> None:
    """Tell on standard error how to go on with the results in `out`."""
    from rich.console import Console

    line = f"vhserve: interrupted; nothing measured is lost: run the same command again to continue {out}"
    Console(stderr=True, soft_wrap=True, highlight=False).print(line, markup=False)


@contextmanager
def can_be_continued(out: Path) -> Iterator[None]:
    """End the command with the signal's exit code, and say how to go on, when the block is stopped by a signal."""
    from calibrate.runs.interrupts import Stopped

    try:
        yield
    except Stopped as stop:
        say_interrupted(out)
        raise SystemExit(stop.code) from None
