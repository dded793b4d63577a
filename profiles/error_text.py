"""Text of other programs' failures, cut down to what fits in a one-line error.

Owns the cutting. Knows neither what failed nor which error is raised for it.
"""

from pathlib import Path
from typing import Final

_LONGEST: Final = 300
"""Characters of a line that are kept: enough for a cause, and still one line on a terminal or in a log."""

_TAIL_BYTES: Final = 4096


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Text with all white space, line ends included, as single spaces, cut at `longest` characters."""
    return " ".join(text.split())[:longest]


def last_line(log: Path) -> str:
    """The last line of a log that is not blank, of its last 4 KiB and cut at 300 characters: where programs say why."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else "(its log is empty)"
