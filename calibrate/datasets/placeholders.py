"""The text that stands for a picture inside a question, as in LLaVA's training data: where it puts the picture.

Owns which places are understood: the beginning and the end. Does not know records or models.
"""

from typing import Final, NamedTuple

PLACEHOLDER: Final = "<image>"
"""What data sets write for the picture, whatever the model's own token is called."""


class Placed(NamedTuple):
    """A question without the placeholder, and whether its picture comes behind it."""

    question: str
    picture_last: bool


def place_picture(text: str, placeholder: str = PLACEHOLDER) -> Placed | None:
    """Take a placeholder off the beginning or end of a question, with the blanks beside it.

    Parameters
    ----------
    text
        The question; without a placeholder it stays as it is, and the picture comes first.

    Returns
    -------
    None where a placeholder is left: in the middle, or a second one; or where nothing else is.

    >>> place_picture("<image>\\nIs it red?")
    Placed(question='Is it red?', picture_last=False)
    >>> place_picture("Is this <image> red?") is None
    True
    """
    if placeholder not in text:
        return Placed(text, False)
    bare = text.strip()
    first = bare.startswith(placeholder)
    rest = bare.removeprefix(placeholder).lstrip() if first else bare.removesuffix(placeholder).rstrip()
    return Placed(rest, not first) if rest and placeholder not in rest else None
