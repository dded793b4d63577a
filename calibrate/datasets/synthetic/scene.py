"""Scenes: which object lies in which cell, before anything is drawn.

A kind is a colour and a shape, `4 * colour + shape`. Each scene holds one category (all of a colour, or all of a
shape) of 1 to 7 objects in one to three kinds, among distractor kinds of 1 to 7 objects each, so that every counting
family has something to ask. Knows no pixels and no questions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from calibrate.datasets.synthetic.vocabulary import CELLS, MOST

EMPTY = -1
_TINT = 16


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes
    ----------
    kinds
        Kind of the object in each cell, `EMPTY` where there is none. Shape `(144,)`.
    tints
        What each cell's object adds to its colour's red, green and blue, in steps of 1/255. Shape `(144, 3)`.
    background
        Red, green and blue of the ground, 0 to 255. Shape `(3,)`.
    """

    kinds: NDArray[np.int64]
    tints: NDArray[np.int64]
    background: NDArray[np.int64]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Objects of each colour and shape. Shape `(4 colours, 4 shapes)`."""
        return np.bincount(self.kinds[self.kinds >= 0], minlength=16).reshape(4, 4)

    def cells_of(self, colour: int | None, shape: int | None) -> NDArray[np.int64]:
        """Cells whose object has this colour and this shape; `None` means any."""
        found = self.kinds >= 0
        if colour is not None:
            found = found & (self.kinds // 4 == colour)
        if shape is not None:
            found = found & (self.kinds % 4 == shape)
        return np.flatnonzero(found)


def make_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of 2 to 35 objects in 2 to 7 kinds."""
    counts = np.zeros((4, 4), dtype=np.int64)
    by_colour, value = rng.random() < 0.5, int(rng.integers(4))
    category = counts[value] if by_colour else counts[:, value]
    total = int(rng.integers(1, MOST + 1))
    # Two kinds or more wherever the total allows: a category of one kind would be an object question in disguise.
    members = min(total, int(rng.integers(2, 4)))
    cuts = np.sort(rng.permutation(total - 1)[: members - 1]) + 1
    category[rng.permutation(4)[:members]] = np.diff(cuts, prepend=0, append=total)

    outside = [c * 4 + s for c in range(4) for s in range(4) if (c if by_colour else s) != value]
    distractors = rng.permutation(outside)[: int(rng.integers(1, 5))]
    counts.reshape(16)[distractors] = rng.integers(1, MOST + 1, size=len(distractors))

    objects = np.repeat(np.arange(16), counts.reshape(16))
    kinds = np.full(CELLS, EMPTY, dtype=np.int64)
    kinds[rng.permutation(CELLS)[: len(objects)]] = objects
    tints = rng.integers(-_TINT, _TINT + 1, size=(CELLS, 3))
    return Scene(kinds, tints, int(rng.integers(0, 32)) + rng.integers(0, 9, size=3))
