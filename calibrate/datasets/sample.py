"""The sample: what every dataset yields and every measurement takes.

Owns the fields and their meaning. Knows no dataset, no model and no chat template.
"""

from dataclasses import dataclass

from PIL import Image

Box = tuple[float, float, float, float]
"""A region of a picture, `(x0, y0, x1, y1)` in pixels of the picture as it is shown, upright."""


@dataclass(frozen=True)
class Sample:
    """One picture with one question.

    Attributes
    ----------
    id
        Names the sample within all datasets, for good.
    image
        The picture as the server shows it: RGB, upright, transparency on white.
    question
        Plain text, without a chat template.
    answer
        The right answer, one of `options`.
    family
        Which kind of question it is.
    options
        Every answer that the question allows.
    box
        Region of `image` that the question is about, `(x0, y0, x1, y1)` in pixels; `None` where there is none.
    group
        Samples of one group are one question asked in several ways, right only if all are (circular evaluation);
        `None` for a sample that counts by itself.
    file
        Content of the file that `image` was decoded from, which is what is sent to a server; `None` where the picture
        was drawn on or made here.
    picture_last
        The picture comes behind the question, if the chat template keeps the order of the two.
    """

    id: str
    image: Image.Image
    question: str
    answer: str
    family: str
    options: tuple[str, ...]
    box: Box | None = None
    group: str | None = None
    file: bytes | None = None
    picture_last: bool = False
