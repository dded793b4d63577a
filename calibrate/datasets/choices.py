"""Multiple choice as LLaVA is asked it: options behind letters, and the wording of its evaluation recipes.

Owns letters and prompts that several published datasets share. Source: docs/Evaluation.md and llava/eval/ of
haotian-liu/LLaVA. Knows no dataset.
"""

from collections.abc import Sequence
from typing import Final

from calibrate.datasets.records import Record

LETTERS: Final = ("A", "B", "C", "D")
WORD: Final = "Answer the question using a single word or phrase."
LETTER: Final = "Answer with the option's letter from the given choices directly."


def lettered(options: Sequence[str]) -> list[str]:
    """`A. …`, `B. …`: a line for each option."""
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def letter_question(question: str, options: Sequence[str]) -> str:
    """A question, its options and the request for a letter, a line each."""
    return "\n".join((question, *lettered(options), LETTER))


def right_letter(record: Record, name: str, options: Sequence[str]) -> str:
    """The field that holds the right option's letter; it must be one of as many as there are options."""
    return record.one_of(name, LETTERS[: len(options)])
