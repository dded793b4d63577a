"""Samples of the synthetic world: a family and an index make a picture, a question, an answer and a box.

A sample is a pure function of `(split, seed, family, index)`: these four seed its generator, and the split comes
first, so the samples of the two splits come from disjoint random streams and any process can make any sample. Answers
are balanced within a family. Knows no model.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from calibrate.datasets.synthetic import questions
from calibrate.datasets.synthetic.draw import draw
from calibrate.datasets.synthetic.scene import Scene, make_scene
from calibrate.datasets.synthetic.vocabulary import MOST, region_box

if TYPE_CHECKING:
    from calibrate.datasets.sample import Sample

FAMILIES: Final = (
    "general",
    "general_box",
    "object",
    "object_box",
    "super",
    "super_box",
    "yes_no",
    "multiple_choice",
)
"""Question families with answers of one token; in those named `_box` the region is drawn on the picture as well."""

REPLIES: Final = ("describe",)
"""Families with answers of several tokens, of which all need the picture; asked only where they are named. The shipped
demo model was not taught them."""

STREAMS: Final = {"choosing": 1, "measuring": 2}
"""First word of every sample's seed, by split. The scenes that the demo model learned from have a word of their own."""

# Third word of a sample's seed; len(FAMILIES) is that of the demo model's lessons.
_NUMBERS: Final = {
    **{family: number for number, family in enumerate(FAMILIES)},
    **{family: number for number, family in enumerate(REPLIES, len(FAMILIES) + 1)},
}


def make_sample(family: str, index: int, split: str = "measuring", seed: int = 0) -> "Sample":
    """Make one sample.

    Parameters
    ----------
    family
        One of `FAMILIES` or `REPLIES`.
    index
        Which sample of the family, from 0 on; there is no end.
    split
        `choosing` or `measuring`.
    seed
        Another seed is another world of the same split.

    Returns
    -------
    Sample with a 96 x 96 RGB picture, an answer of one token (of `REPLIES`: of three), and the box of the cell that the
    question is about in pixels; the box is `None` only where the answer is that nothing is there.

    Raises
    ------
    ValueError
        For an unknown family or split, or a negative index or seed.
    """
    # The package of datasets imports this one, so not before it is needed.
    from calibrate.datasets.sample import Sample

    if family not in _NUMBERS:
        raise ValueError(f"unknown question family {family!r}: expected one of {', '.join(_NUMBERS)}")
    if split not in STREAMS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(STREAMS)}")
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed must not be negative, but are {index} and {seed}")
    rng = np.random.default_rng([STREAMS[split], seed, _NUMBERS[family], index])
    scene, question = _ask(rng, family.removesuffix("_box"))
    return Sample(
        id=f"synthetic/{split}/{seed}/{family}/{index}",
        image=Image.fromarray(draw(scene, question.cell if family.endswith("_box") else None)),
        question=question.text,
        answer=question.answer,
        family=family,
        options=question.options,
        box=None if question.cell is None else region_box(question.cell),
    )


def samples(n: int, families: Sequence[str] = FAMILIES, split: str = "measuring", seed: int = 0) -> "Iterator[Sample]":
    """Make the first `n` samples, taking the families in turn (round robin).

    Raises
    ------
    ValueError
        For no family, and as `make_sample`.
    """
    if not families:
        raise ValueError(f"no question family given: expected some of {', '.join(FAMILIES)}")
    for i in range(n):
        yield make_sample(families[i % len(families)], i // len(families), split, seed)


def _ask(rng: np.random.Generator, family: str) -> tuple[Scene, questions.SceneQuestion]:
    """Draw the answer first, then scenes until one gives it: answers come out uniform."""
    if family == "yes_no":
        scene = make_scene(rng)
        yes = rng.random() < 0.5
        return scene, questions.yes_question(scene, _any_cell(rng, scene)) if yes else questions.no_question(rng, scene)
    if family == "multiple_choice":
        scene, stem = _ask(rng, ("object", "colour", "shape")[int(rng.integers(3))])
        return scene, questions.multiple_choice_question(rng, scene, stem)
    if family == "colour":
        scene = make_scene(rng)
        return scene, questions.colour_question(scene, _any_cell(rng, scene))
    if family == "shape":
        scene = make_scene(rng)
        return scene, questions.shape_question(scene, _any_cell(rng, scene))
    wanted = int(rng.integers(1, MOST + 1))
    by_colour = rng.random() < 0.5
    while True:
        scene = make_scene(rng)
        if family == "super":
            per_kind = scene.counts if by_colour else scene.counts.T
            # A category of one kind would be an object question in disguise, unless it has one object only.
            fits = (per_kind.sum(1) == wanted) & ((per_kind > 0).sum(1) >= min(wanted, 2))
            if fits.any():
                value = int(rng.choice(np.flatnonzero(fits)))
                cells = scene.cells_of(value, None) if by_colour else scene.cells_of(None, value)
                return scene, questions.super_question(scene, int(rng.choice(cells)), by_colour)
        elif (scene.counts == wanted).any():
            colour, shape = divmod(int(rng.choice(np.flatnonzero(scene.counts == wanted))), 4)
            cell = int(rng.choice(scene.cells_of(colour, shape)))
            return scene, _ABOUT_A_KIND[family](scene, cell)


_ABOUT_A_KIND: Final = {
    "general": questions.general_question,
    "object": questions.object_question,
    "describe": questions.describe_question,
}


def _any_cell(rng: np.random.Generator, scene: Scene) -> int:
    """A cell with an object in it, each kind as likely as any other."""
    colour, shape = divmod(int(rng.choice(np.flatnonzero(scene.counts))), 4)
    return int(rng.choice(scene.cells_of(colour, shape)))
