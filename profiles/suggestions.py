"""What a misspelt name was probably meant to be.

Standard library only. Does not know what is named: models, datasets, rankings, flags.
"""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """What to do about an unknown name: a question that offers the closest known ones, or `otherwise`."""
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else otherwise
