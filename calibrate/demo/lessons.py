"""Lessons: batches of training pictures with eight questions each, as arrays.

Each picture comes once, and its questions stand behind it in slots of fixed length. Under `block_mask`, and with
positions that start again after the picture, a question sees the picture and itself only: eight exact copies of the
prompt that is served, at 1.5 times the cost of one. A batch is a pure function of `(seed, step)`. Knows no weights.
"""

import re
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from calibrate.datasets.synthetic import questions
from calibrate.datasets.synthetic.draw import draw
from calibrate.datasets.synthetic.scene import Scene, make_scene
from calibrate.datasets.synthetic.vocabulary import CELLS, MOST, REGIONS
from calibrate.datasets.synthetic.world import FAMILIES, STREAMS
from calibrate.demo.build import ASSISTANT, EOS, IMAGE, PAD, TOKENS, USER

QUESTIONS: Final = 8
SLOT: Final = 21
"""Tokens of the longest question with `ASSISTANT:` and its answer."""

PREFIX: Final = 1 + CELLS
LENGTH: Final = -(-(PREFIX + QUESTIONS * SLOT) // 8) * 8
"""Tokens of a sequence, rounded up to 8: attention kernels with a mask ask for it."""

KINDS: Final = (*FAMILIES, "look_up")
"""What a lesson's question may be: a public family, or a look-up of what lies in a region, which only training asks."""

# Behind the split and the seed stands the family in the seeds of samples; lessons use the next free number.
_STREAM: Final = len(FAMILIES)


NO_REGION: Final = -100
"""The label that a cross entropy ignores."""

_FIRST_REGION: Final = TOKENS[REGIONS[0]]


class TrainingBatch(NamedTuple):
    """Arrays of `b` pictures; slot `k` of a picture holds its question `k`."""

    pixels: torch.Tensor
    """uint8, `(b, 96, 96, 3)`."""
    tokens: torch.Tensor
    """int64, `(b, LENGTH)`."""
    ends: torch.Tensor
    """int64, `(b, 8)`: position of each `ASSISTANT:`."""
    answers: torch.Tensor
    """int64, `(b, 8)`: token of each answer."""
    kinds: torch.Tensor
    """int64, `(b, 8)`: index of each question's family in `KINDS`."""
    regions: torch.Tensor
    """int64, `(b, 8)`: position of the region's word in each question, 0 where there is none."""
    found: torch.Tensor
    """int64, `(b, 8)`: 1 + kind of what lies in that region, `NO_REGION` where there is none."""
    cells: torch.Tensor
    """int64, `(b, 144)`: 0 for an empty cell, else 1 + kind."""
    outlined: torch.Tensor
    """int64, `(b,)`: outlined cell, -1 for none."""


class Lessons(Dataset[TrainingBatch]):
    """Batch `i` is what training step `i` sees.

    Parameters
    ----------
    batch
        Pictures in a batch.
    seed
        Seed of the training stream.
    curriculum
        Steps over which the share of look-ups falls from nearly all to their final share: counting what lies in a
        region is learned only after finding it.
    """

    def __init__(self, batch: int, seed: int, curriculum: int) -> None:
        self.batch, self.seed, self.curriculum = batch, seed, curriculum

    def __getitem__(self, step: int) -> TrainingBatch:
        rng = np.random.default_rng([STREAMS["choosing"], self.seed, _STREAM, step])
        easy = 0.9 * max(0.0, 1 - step / self.curriculum) if self.curriculum else 0.0
        pixels, tokens, ends, answers, kinds, regions, found, cells, outlined = zip(
            *(_lesson(rng, easy) for _ in range(self.batch)), strict=True
        )
        return TrainingBatch(
            torch.from_numpy(np.stack(pixels)),
            torch.from_numpy(np.stack(tokens)),
            torch.tensor(ends),
            torch.tensor(answers),
            torch.tensor(kinds),
            torch.tensor(regions),
            torch.tensor(found),
            torch.from_numpy(np.stack(cells)),
            torch.tensor(outlined),
        )


def encode(text: str) -> list[int]:
    """Token ids of a question, as the tokenizer splits it (a test holds the two together), but faster."""
    return [TOKENS[word] for word in re.findall(r"\w+|[^\w\s]+", text)]


def block_mask() -> torch.Tensor:
    """Who may look at whom: bool, `(LENGTH, LENGTH)`, row looks at column."""
    position = torch.arange(LENGTH)
    slot = torch.where(position < PREFIX, -1, (position - PREFIX) // SLOT)
    same = (slot[:, None] == slot[None, :]) | (slot[None, :] == -1)
    return same & (position[:, None] >= position[None, :])


def positions() -> torch.Tensor:
    """Position of each token for the rotary embedding: each slot goes on from the picture. int64, `(LENGTH,)`."""
    position = torch.arange(LENGTH)
    return torch.where(position < PREFIX, position, PREFIX + (position - PREFIX) % SLOT)


class _Lesson(NamedTuple):
    """One picture's row of a batch, in the order of `TrainingBatch`."""

    pixels: NDArray[np.uint8]
    tokens: NDArray[np.int64]
    ends: list[int]
    answers: list[int]
    kinds: list[int]
    regions: list[int]
    found: list[int]
    cells: NDArray[np.int64]
    outlined: int


def _lesson(rng: np.random.Generator, easy: float) -> _Lesson:
    scene = make_scene(rng)
    outlined = _cell_by_count(rng, scene) if rng.random() < 0.3 else None
    tokens = np.full(LENGTH, TOKENS[PAD], dtype=np.int64)
    tokens[0], tokens[1:PREFIX] = TOKENS[USER], TOKENS[IMAGE]
    drawn, mark = draw(scene, outlined), -1 if outlined is None else outlined
    lesson = _Lesson(drawn, tokens, [], [], [], [0] * QUESTIONS, [NO_REGION] * QUESTIONS, scene.kinds + 1, mark)
    for slot, (kind, question) in enumerate(_questions(rng, scene, outlined, easy)):
        ids = [*encode(question.text), TOKENS[ASSISTANT], TOKENS[question.answer]]
        start = PREFIX + slot * SLOT
        tokens[start : start + len(ids)] = ids
        lesson.ends.append(start + len(ids) - 2)
        lesson.answers.append(ids[-1])
        lesson.kinds.append(KINDS.index(kind))
        for i, token in enumerate(ids):
            if token >= _FIRST_REGION:
                lesson.regions[slot], lesson.found[slot] = start + i, int(lesson.cells[token - _FIRST_REGION])
    return lesson


def _questions(
    rng: np.random.Generator, scene: Scene, outlined: int | None, easy: float
) -> list[tuple[str, questions.SceneQuestion]]:
    """Eight questions; four are about the outlined cell, if there is one. `easy` is the extra share of look-ups."""
    asked: list[tuple[str, questions.SceneQuestion]] = []
    for family in ("general", "object", "super", "look_up", "general", "super", "yes_no", "multiple_choice"):
        about = outlined if len(asked) < 4 else None
        if family in ("general", "super", "multiple_choice") and rng.random() < easy:
            family = "look_up"
        question = _question(rng, scene, family, about)
        drawn = about is not None and f"{family}_box" in FAMILIES
        asked.append((f"{family}_box" if drawn else family, question))
    return asked


def _question(rng: np.random.Generator, scene: Scene, family: str, about: int | None) -> questions.SceneQuestion:
    cell = _cell_by_count(rng, scene) if about is None else about
    if family == "general":
        return questions.general_question(scene, cell)
    if family == "object":
        return questions.object_question(scene, cell)
    if family == "super":
        return _super(rng, scene, about)
    if family == "yes_no":
        return questions.yes_question(scene, cell) if rng.random() < 0.5 else questions.no_question(rng, scene)
    if family == "look_up":
        return (questions.colour_question if rng.random() < 0.5 else questions.shape_question)(scene, cell)
    stem = (questions.object_question, questions.colour_question, questions.shape_question)[int(rng.integers(3))]
    return questions.multiple_choice_question(rng, scene, stem(scene, cell))


def _super(rng: np.random.Generator, scene: Scene, about: int | None) -> questions.SceneQuestion:
    totals = np.concatenate([scene.counts.sum(1), scene.counts.sum(0)])
    if about is not None:
        own = np.zeros(8, dtype=bool)
        own[[scene.kinds[about] // 4, 4 + scene.kinds[about] % 4]] = True
        totals = np.where(own, totals, 0)
    fits = (totals > 0) & (totals <= MOST)
    if not fits.any():
        # Both categories of an outlined object can be too large to count; its kind never is.
        return questions.object_question(scene, _cell_by_count(rng, scene) if about is None else about)
    wanted = rng.integers(1, MOST + 1)
    off = np.where(fits, np.abs(totals - wanted), CELLS)
    category = int(rng.choice(np.flatnonzero(off == off.min())))
    by_colour, value = category < 4, category % 4
    cells = scene.cells_of(value, None) if by_colour else scene.cells_of(None, value)
    return questions.super_question(scene, int(rng.choice(cells)) if about is None else about, by_colour)


def _cell_by_count(rng: np.random.Generator, scene: Scene) -> int:
    """Cell of a kind whose count is as close as can be to a number drawn uniformly, so that counts come out even."""
    counts = scene.counts.reshape(-1)
    off = np.where(counts > 0, np.abs(counts - rng.integers(1, MOST + 1)), CELLS)
    kind = int(rng.choice(np.flatnonzero(off == off.min())))
    return int(rng.choice(np.flatnonzero(scene.kinds == kind)))


EOS_TOKEN: Final = TOKENS[EOS]
"""What follows each answer."""
