"""Questions: the wording of each family, and the one-token answer that a scene gives to it.

After PointQA (Mani et al. 2020; general, object, super), POPE (Li et al. 2023; yes or no) and MMBench (Liu et al.
2023; four options, the answer is a letter). A question is asked about a cell, and that cell is its box. Knows how a
question is worded and answered, not which one is worth asking (`world`), nor anything of tokens.
"""

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from calibrate.datasets.synthetic.scene import Scene
from calibrate.datasets.synthetic.vocabulary import (
    COLOURS,
    LETTERS,
    MOST,
    NUMBERS,
    PLURALS,
    SHAPES,
    YES_NO,
    region_name,
)


@dataclass(frozen=True)
class SceneQuestion:
    """A question, its answer, every answer allowed, and the cell that it is about (`None`: about nothing there is)."""

    text: str
    answer: str
    options: tuple[str, ...]
    cell: int | None


def general_question(scene: Scene, cell: int) -> SceneQuestion:
    """How many are of the kind that lies in a region: the kind is not named, it must be looked up."""
    text = f"How many are there like the one in region {region_name(cell)}?"
    return SceneQuestion(text, str(_count(scene, cell)), NUMBERS, cell)


def object_question(scene: Scene, cell: int) -> SceneQuestion:
    """How many are of a kind, which is named."""
    colour, shape = divmod(int(scene.kinds[cell]), 4)
    text = f"How many {COLOURS[colour]} {PLURALS[SHAPES[shape]]} are there?"
    return SceneQuestion(text, str(_count(scene, cell)), NUMBERS, cell)


def super_question(scene: Scene, cell: int, by_colour: bool) -> SceneQuestion:
    """How many are of a category: every shape of one colour, or every colour of one shape."""
    colour, shape = divmod(int(scene.kinds[cell]), 4)
    if by_colour:
        text, count = f"How many {COLOURS[colour]} things are there?", scene.counts[colour].sum()
    else:
        text, count = f"How many {PLURALS[SHAPES[shape]]} of any colour are there?", scene.counts[:, shape].sum()
    return SceneQuestion(text, str(int(count)), NUMBERS, cell)


def colour_question(scene: Scene, cell: int) -> SceneQuestion:
    """Which colour lies in a region: no family of its own, but a lesson for training and a stem for options."""
    return SceneQuestion(
        f"What colour is in region {region_name(cell)}?", COLOURS[scene.kinds[cell] // 4], COLOURS, cell
    )


def shape_question(scene: Scene, cell: int) -> SceneQuestion:
    """Which shape lies in a region; see `colour_question`."""
    return SceneQuestion(f"What shape is in region {region_name(cell)}?", SHAPES[scene.kinds[cell] % 4], SHAPES, cell)


def describe_question(scene: Scene, cell: int) -> SceneQuestion:
    """What lies in a region, and how many like it there are: colour, shape and number, a word each."""
    colour, shape = divmod(int(scene.kinds[cell]), 4)
    text = f"What is in region {region_name(cell)}? How many are there?"
    return SceneQuestion(text, f"{COLOURS[colour]} {SHAPES[shape]} {_count(scene, cell)}", _DESCRIPTIONS, cell)


def yes_question(scene: Scene, cell: int) -> SceneQuestion:
    """Is there one of a kind that there is."""
    return SceneQuestion(_presence(int(scene.kinds[cell])), "yes", YES_NO, cell)


def no_question(rng: np.random.Generator, scene: Scene) -> SceneQuestion:
    """Is there one of a kind that there is not.

    Half of the time, where it can be, colour and shape are both in the picture, on different objects: the adversarial
    setting of POPE.
    """
    absent = scene.counts == 0
    misleading = absent & (scene.counts.sum(1) > 0)[:, None] & (scene.counts.sum(0) > 0)
    pool = misleading if misleading.any() and rng.random() < 0.5 else absent
    return SceneQuestion(_presence(int(rng.choice(np.flatnonzero(pool)))), "no", YES_NO, None)


def multiple_choice_question(rng: np.random.Generator, scene: Scene, stem: SceneQuestion) -> SceneQuestion:
    """Offer four options, one of them right, in random order; the answer is a letter."""
    if stem.options == NUMBERS:
        others = [n for n in NUMBERS if n != stem.answer]
        offered = [stem.answer, *(others[i] for i in rng.permutation(MOST - 1)[:3])]
    else:
        offered = list(stem.options)
    shuffled = [offered[i] for i in rng.permutation(len(offered))]
    listed = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, shuffled, strict=True))
    return SceneQuestion(f"{stem.text} {listed}", LETTERS[shuffled.index(stem.answer)], LETTERS, stem.cell)


_DESCRIPTIONS: Final = tuple(" ".join(words) for words in product(COLOURS, SHAPES, NUMBERS))


def _presence(kind: int) -> str:
    return f"Is there a {COLOURS[kind // 4]} {SHAPES[kind % 4]} in the picture?"


def _count(scene: Scene, cell: int) -> int:
    colour, shape = divmod(int(scene.kinds[cell]), 4)
    return int(scene.counts[colour, shape])
