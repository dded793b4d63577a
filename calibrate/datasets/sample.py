"""The sample: what every dataset yields and every measurement takes.

Owns the fields and their meaning. Knows no dataset, no model and no chat template.
"""

from dataclasses import dataclass

from PIL import Image

Box = tuple[float, float, float, float]
"""A region of a picture, `(x0, y0, x1, y1)` in pixels."""


@dataclass(frozen=True)
class Sample:
    """One picture with one question.

    Attributes
    ----------
    id
        Names the sample within all datasets, for good.
    image
        The picture, RGB.
    question
        Plain text, without a chat template.
    answer
        The right answer, one of `options`.
    family
        Which kind of question it is.
    options
        Every answer that the question allows.
    box
        Region that the question is about, `(x0, y0, x1, y1)` in pixels; `None` where there is none.
    group
        Samples of one group are one question asked in several ways, right only if all are (circular evaluation);
        `None` for a sample that counts by itself.
    """

    id: str
    image: Image.Image
    question: str
    answer: str
    family: str
    options: tuple[str, ...]
    box: Box | None = None
    group: str | None = None
