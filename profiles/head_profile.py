"""The head profile: what calibration measured, per query head of every layer.

Does not know how anything is measured, nor what is done with it.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from profiles import canonical
from profiles.arrays import Float32Array
from profiles.errors import WrongShape, WrongValue
from profiles.geometry import ModelGeometry, ModelRef, Name
from profiles.names import ImportedRanking
from profiles.strict import JsonScalar, Strict, defect

PROFILE_FORMAT: Final = "vhserve.head-profile"

# Sums of attention in float32 or bfloat16 pass 1 by rounding.
Share = Annotated[float, Field(ge=0, le=1.001)]


class HeadScores(Strict):
    """Means over the samples, each indexed ``[layer][query head]``.

    Attributes
    ----------
    image_weight
        Share of the last prompt position's attention on image tokens, 0 to 1.
    concentration
        1 − normalised entropy over image tokens, 0 to 1; higher is narrower.
    score
        Head score, at least 0; higher means more visual: keep.
    box_weight
        Share of attention on image tokens inside the question's box, over the samples that have one.
    """

    image_weight: list[list[Share]]
    concentration: list[list[Share]]
    score: list[list[NonNegativeFloat]]
    box_weight: list[list[Share]] | None


class HeadEffects(Strict):
    """What treating a head would do to the answers, to first order; each table is indexed ``[layer][query head]``.

    Means over the samples of the size of the change in the log-odds of the right answer's first token, in nats; at
    least 0; higher means worth more: keep.

    Attributes
    ----------
    removed, text_only
        By treatment.
    gradient
        Size of the change in the loss −log p of that token instead, for removal: the importance of Michel et al.
        (NeurIPS 2019); None where it was not measured.
    block_size
        Of the image blocks that a text-only head would not see; None for single image tokens.
    """

    removed: list[list[NonNegativeFloat]]
    text_only: list[list[NonNegativeFloat]]
    gradient: list[list[NonNegativeFloat]] | None = None
    block_size: PositiveInt | None


class ImportedScores(Strict):
    """Scores of the same heads that another project has published (`profiles.planning.published_scores`).

    Attributes
    ----------
    source, digest
        Name of the file, and ``sha256:…`` of its bytes.
    scores
        ``[layer][query head]``; higher means keep.
    """

    name: ImportedRanking
    source: Name
    digest: Name
    scores: list[list[float]]


class ScoreFormula(Strict):
    """Formula of `HeadScores.score` and its constants (paper section 4).

    Attributes
    ----------
    layer_function
        ``inverse``: 1 / (layer + 1); ``none``: 1.
    epsilon
        Added where the formula divides and takes logarithms.
    """

    name: Literal["layer*weight*concentration"]
    layer_function: Literal["inverse", "none"]
    epsilon: NonNegativeFloat


class DatasetRef(Strict):
    """What was measured on.

    Attributes
    ----------
    digest
        ``sha256:…`` of the data set's file, or None where it is generated.
    """

    name: Name
    digest: str | None
    split: str | None
    settings: dict[str, JsonScalar]


class HeadProfile(Strict):
    """A calibration run's result; see FORMAT.md.

    Attributes
    ----------
    samples, samples_skipped, samples_with_box
        Measured; left out because they were broken; measured and with a box.
    settings
        How the run was made: dtype, device, batch_size, processes.
    effects
        Effects of treatments; None where they were not measured.
    imported
        Scores of other projects, each at most once.
    mean_output
        ``[layers][query_heads][head_size]``: mean over samples and positions of each head's output before `o_proj`.
    """

    format: Literal["vhserve.head-profile"] = PROFILE_FORMAT
    version: Literal[1] = 1
    model: ModelRef
    geometry: ModelGeometry
    dataset: DatasetRef
    samples: PositiveInt
    samples_skipped: NonNegativeInt
    samples_with_box: NonNegativeInt
    seed: int
    formula: ScoreFormula
    settings: dict[str, JsonScalar]
    versions: dict[str, str]
    commit: str | None = None
    heads: HeadScores
    effects: HeadEffects | None = None
    imported: list[ImportedScores] = Field(default_factory=list)
    mean_output: Float32Array | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("image_weight", "concentration", "score", "box_weight"):
            rows = getattr(self.heads, name)
            if rows is not None:
                check_rows(rows, self.geometry, f"heads.{name}")
        if self.effects is not None:
            check_rows(self.effects.removed, self.geometry, "effects.removed")
            check_rows(self.effects.text_only, self.geometry, "effects.text_only")
            if self.effects.gradient is not None:
                check_rows(self.effects.gradient, self.geometry, "effects.gradient")
        for index, one in enumerate(self.imported):
            check_rows(one.scores, self.geometry, f"imported[{index}].scores")
            if one.name in [other.name for other in self.imported[:index]]:
                raise defect(WrongValue, f"imported[{index}].name", f"is {one.name!r} again", expected="each name once")
        shape = (self.geometry.layers, self.geometry.query_heads, self.geometry.head_size)
        if self.mean_output is not None and self.mean_output.shape != shape:
            found = f"has shape {list(self.mean_output.shape)}"
            raise defect(WrongShape, "mean_output", found, expected=f"{list(shape)} (layers, query heads, head size)")
        if self.samples_with_box > self.samples:
            raise defect(WrongValue, "samples_with_box", f"is {self.samples_with_box}", expected="at most `samples`")
        if self.heads.box_weight is not None and not self.samples_with_box:
            raise defect(WrongValue, "heads.box_weight", "is given without a sample with a box", expected="null")
        return self

    def scores(self) -> npt.NDArray[np.float64]:
        """Head scores, ``(layers, query_heads)``; higher means more visual: keep."""
        return np.array(self.heads.score, dtype=np.float64)

    @property
    def digest(self) -> str:
        """``sha256:…`` of the canonical bytes."""
        return canonical.digest(self)


def check_rows(rows: Sequence[Sequence[object]], geometry: ModelGeometry, path: str) -> None:
    """Refuse a table that is not ``[layers][query_heads]``.

    Raises
    ------
    PydanticCustomError
        Becomes `WrongShape` with the table's, or the row's, path.
    """
    if len(rows) != geometry.layers:
        raise defect(WrongShape, path, f"has {len(rows)} rows", expected=f"{geometry.layers}, one for each layer")
    for layer, row in enumerate(rows):
        if len(row) != geometry.query_heads:
            found = f"has {len(row)} entries"
            raise defect(WrongShape, f"{path}[{layer}]", found, expected=f"{geometry.query_heads}, one for each head")
