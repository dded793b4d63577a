"""How a written reply is read as an answer: what does not count, and whether its first word is compared or all of it.

Owns the rule that `vhserve evaluate` scores replies by and `calibrate` judges tokens by. Knows no model and no server.
"""

from collections.abc import Iterable
from typing import Final

PUNCTUATION: Final = " \t\n\r.,:;!?\"'()*"
"""Around a reply, this does not count."""

ENDING: Final = " \t\n\r.!?\"'"
"""What may end a reply of several words: more words may follow the rest of `PUNCTUATION`."""


def single_words(options: Iterable[str]) -> bool:
    """Whether each is one word, so that a reply's first word is its answer; else the whole reply is."""
    return all(len(option.split()) == 1 for option in options)
