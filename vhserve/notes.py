"""Lines for the user on standard error, beside the results.

Owns their form. Does not know what is said.
"""

import sys


def print_note(text: str, kind: str = "note") -> None:
    """Say one line; `kind` is `note` or `warning`."""
    print(f"vhserve: {kind}: {text}", file=sys.stderr, flush=True)
