"""The line for accuracies that say nothing: of a model that is never right, no head and no plan can lose an answer.

Owns the words. Knows counts and names, nothing of models or datasets.
"""

from collections.abc import Mapping
from typing import Final

Counts = tuple[int, int]
"""Right answers, and samples."""

_FIX: Final = "look at its replies (`vhserve evaluate --out`), its chat template and the dataset's answers"


def nothing_right(subject: str, whole: Counts, families: Mapping[str, Counts] | None = None) -> str | None:
    """What is to be said where nothing is right, of all samples or of those of a question family.

    Parameters
    ----------
    subject
        Who answers, in words.
    whole, families
        Of all samples, and of each question family.

    Returns
    -------
    One line without an end; `None` where every family has a right answer.
    """
    if not whole[0]:
        return f"{subject} answers none of {whole[1]:,} samples right, so that no answer can be lost: {_FIX}"
    never = [f"{name} ({samples:,})" for name, (right, samples) in (families or {}).items() if not right]
    if not never:
        return None
    return (
        f"{subject} answers no sample of {', '.join(never)} right, so that no answer can be lost there: "
        f"{_FIX.replace('its replies', 'its replies to them')}"
    )
