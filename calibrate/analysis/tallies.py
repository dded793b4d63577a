"""What the analysis adds up: per-head sums by question family, right or wrong answer, and fold; and single samples'
ranks.

A fold is a share of the samples that depends on each one's name alone, so that neither order nor batch size matters;
leaving one out at a time gives intervals (`calibrate.analysis.jackknife`). Owns the accumulation and the means. Does
not know models, files or figures.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from calibrate.datasets.families import ALL
from calibrate.scoring.scorers.box_weight import BoxWeight
from calibrate.scoring.scorers.concentration import Concentration
from calibrate.scoring.scorers.image_weight import ImageWeight
from calibrate.scoring.scorers.score import layer_factor
from profiles.geometry import ModelGeometry

Array = npt.NDArray[np.float64]

FOLDS: Final = 20
SCORED: Final = (ImageWeight(), BoxWeight(), Concentration())
TABLES: Final = (*(scorer.name for scorer in SCORED), "product")
"""`product` is image weight times concentration, of each sample."""


def fold_of(name: str) -> int:
    """Fold of a sample of this name."""
    return zlib.crc32(name.encode()) % FOLDS


@dataclass(frozen=True)
class JudgedBatch:
    """What a batch's samples are and what the model said, a value for each sample.

    Attributes
    ----------
    names, families
        Of the samples.
    right
        Whether the token is the answer.
    among
        Whether it is one of the sample's options.
    """

    names: Sequence[str]
    families: Sequence[str]
    right: Sequence[bool]
    among: Sequence[bool]


class Tally:
    """Sums over the samples seen so far.

    Attributes
    ----------
    families
        In order of appearance.
    arrays
        By name: the tables, shape `(families, 2, FOLDS, layers, query heads)`, wrong answers before right ones;
        `samples` and `with_box`, `(families, 2, FOLDS)`; and for each sample, `(samples, …)`: `ranks` with a column for
        each layer, `family`, `right` and `among`.
    """

    def __init__(self, families: Sequence[str], arrays: Mapping[str, Array]) -> None:
        self.families, self.arrays = list(families), dict(arrays)

    @classmethod
    def empty(cls, geometry: ModelGeometry) -> "Tally":
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("family", "right", "among"), (0,))
        shapes |= dict.fromkeys(TABLES, (0, 2, FOLDS, geometry.layers, geometry.query_heads))
        shapes |= dict.fromkeys(("samples", "with_box"), (0, 2, FOLDS)) | {"ranks": (0, geometry.layers)}
        return cls([], {name: np.zeros(shape) for name, shape in shapes.items()})

    @property
    def samples(self) -> int:
        return len(self.arrays["family"])

    def plus(
        self, answers: JudgedBatch, scores: Mapping[str, Tensor], has_box: Sequence[bool], ranks: Array
    ) -> "Tally":
        """This tally with one batch more.

        Parameters
        ----------
        scores
            By table but `product`, each `(layers, batch, query heads)`.
        ranks
            `(batch, layers)`.
        """
        families = list(dict.fromkeys([*self.families, *answers.families]))
        arrays = {name: array.copy() for name, array in self.arrays.items() if name in (*TABLES, "samples", "with_box")}
        for name, array in arrays.items():
            arrays[name] = np.pad(array, [(0, len(families) - len(array)), *[(0, 0)] * (array.ndim - 1)])
        tables = {
            "image_weight": scores["image_weight"],
            "box_weight": scores["box_weight"],
            "concentration": scores["concentration"],
            "product": scores["image_weight"] * scores["concentration"],
        }
        values = {name: table.cpu().numpy() for name, table in tables.items()}
        numbers = [families.index(family) for family in answers.families]
        for index, (number, right, name) in enumerate(zip(numbers, answers.right, answers.names, strict=True)):
            place = number, int(right), fold_of(name)
            arrays["samples"][place] += 1
            arrays["with_box"][place] += has_box[index]
            for table, of_batch in values.items():
                arrays[table][place] += of_batch[:, index]
        new = {"family": numbers, "right": answers.right, "among": answers.among, "ranks": ranks}
        for name, of_samples in new.items():
            arrays[name] = np.concatenate([self.arrays[name], np.asarray(of_samples, dtype=np.float64)])
        return Tally(families, arrays)

    def finite(self) -> bool:
        """Whether no sum has become NaN or infinite."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays.values())


@dataclass(frozen=True)
class Means:
    """Means of some samples, each table `(layers, query heads)`; `None` where no sample has what it is the mean of.

    Attributes
    ----------
    product, score
        Of image weight times concentration, and of that times 1 / (layer + 1).
    """

    samples: int
    with_box: int
    image_weight: Array
    box_weight: Array | None
    concentration: Array
    product: Array

    @property
    def score(self) -> Array:
        """Head scores, `(layers, query heads)`; higher looks more at the image."""
        factors = np.array([layer_factor(layer, "inverse") for layer in range(len(self.product))])
        return factors[:, None] * self.product


@dataclass(frozen=True)
class Measured:
    """A finished tally, for questions.

    Attributes
    ----------
    tally
        What was added up.
    """

    tally: Tally

    @property
    def families(self) -> list[str]:
        """In order of appearance; `all` only where it is the one family."""
        return [family for family in self.tally.families if family != ALL] or self.tally.families

    @property
    def groups(self) -> list[str | None]:
        """All samples, as `None`, and each family; not twice the same where a dataset has the one family `all`."""
        return list(self.families) if self.families == [ALL] else [None, *self.families]

    def means(
        self, family: str | None = None, *, right: bool | None = None, folds: Sequence[int] | None = None
    ) -> Means | None:
        """Means over the samples of a family (`None`: of all), of right or wrong answers or both, in some folds or all.

        Returns
        -------
        `None` where there is no such sample.
        """
        arrays, wanted = self.tally.arrays, slice(None) if family is None else [self.tally.families.index(family)]
        sides = slice(None) if right is None else [int(right)]
        chosen = list(range(FOLDS)) if folds is None else list(folds)

        def total(name: str) -> Any:
            return arrays[name][wanted][:, sides][:, :, chosen].sum(axis=(0, 1, 2))

        samples, with_box = int(total("samples")), int(total("with_box"))
        if not samples:
            return None
        tables = {name: total(name) / samples for name in TABLES if name != "box_weight"}
        return Means(samples, with_box, box_weight=total("box_weight") / with_box if with_box else None, **tables)

    def own(self, family: str | None = None) -> npt.NDArray[np.bool_]:
        """Which samples are a family's, `(samples,)`; `None` is all."""
        numbers = self.tally.arrays["family"]
        return np.ones(len(numbers), np.bool_) if family is None else numbers == self.tally.families.index(family)

    def right(self, family: str | None = None) -> npt.NDArray[np.bool_]:
        """Which of a family's samples are answered rightly, `(samples of the family,)`."""
        return self.tally.arrays["right"][self.own(family)].astype(np.bool_)

    def among(self, family: str | None = None) -> npt.NDArray[np.bool_]:
        """Which of a family's samples are answered by one of their options, `(samples of the family,)`."""
        return self.tally.arrays["among"][self.own(family)].astype(np.bool_)

    def ranks(self, family: str | None = None) -> npt.NDArray[np.int64]:
        """Rank of the final token behind each layer, `(samples of the family, layers)`."""
        return self.tally.arrays["ranks"][self.own(family)].astype(np.int64)
