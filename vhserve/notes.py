"""Lines for the user on standard error, beside the results.

Owns their form. Does not know what is said.
"""

import sys
from collections.abc import Callable


def print_note(text: str, kind: str = "note") -> None:
    """Say one line; `kind` is `note` or `warning`."""
    print(f"vhserve: {kind}: {text}", file=sys.stderr, flush=True)


def notes_once() -> Callable[[str], None]:
    """A `print_note` that says no line twice."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            print_note(text)

    return say
