"""The head profile: what calibration measured, per query head of every layer.

Does not know how anything is measured, nor what is done with it.
"""

from collections.abc import Sequence
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, PrivateAttr, model_validator

from profiles import canonical
from profiles.arrays import Float32Array
from profiles.errors import MissingField, WrongShape, WrongValue
from profiles.geometry import ModelGeometry, ModelRef, Name
from profiles.names import LayerFunction
from profiles.picture_digests import unpacked
from profiles.ranking import ALL, WELL_FORMED, Ranking, Rows, is_well_formed, out_of_range
from profiles.strict import JsonScalar, Strict, defect

PROFILE_FORMAT: Final = "vhserve.head-profile"

PICTURES: Final = "pictures"
"""Setting of a `DatasetRef` that holds the digests of the samples' pictures."""


class ScoreFormula(Strict):
    """Formula of the ranking ``score`` and its constants (paper section 4).

    Attributes
    ----------
    layer_function
        ``inverse``: 1 / (layer + 1); ``none``: 1.
    epsilon
        Added where the formula divides and takes logarithms.
    """

    name: Literal["layer*weight*concentration"]
    layer_function: LayerFunction
    epsilon: NonNegativeFloat


class DatasetRef(Strict):
    """What was measured on.

    Attributes
    ----------
    digest
        ``sha256:…`` of the data set's file, or None where it is generated.
    split
        The half that was taken (``choosing`` or ``measuring``), ``all``, or the name of a published split.
    settings
        How the samples were taken; under ``pictures``, which they show.
    """

    name: Name
    digest: str | None
    split: str | None
    settings: dict[str, JsonScalar]

    @model_validator(mode="after")
    def _pictures_are_digests(self) -> Self:
        try:
            _ = self.pictures
        except ValueError as error:
            found = f"is not a set of digests ({error})"
            raise defect(WrongValue, f"settings.{PICTURES}", found, expected="base64 of sorted digests") from None
        return self

    @property
    def pictures(self) -> frozenset[bytes] | None:
        """Digests of the pictures of the samples; None where they are not recorded."""
        text = self.settings.get(PICTURES)
        if text is None:
            return None
        if not isinstance(text, str):
            raise ValueError("no text")
        return unpacked(text)

    def described(self) -> dict[str, JsonScalar]:
        """The settings without the digests, for people."""
        return {name: value for name, value in self.settings.items() if name != PICTURES}


class Calibration(Strict):
    """What a calibration run was, and what it found besides its tables: the fields that all versions share.

    Attributes
    ----------
    samples, samples_skipped, samples_with_box
        Measured; left out because they were broken; measured and with a box.
    settings
        How the run was made: dtype, device, image_backend (which resized the pictures), batch_size, processes.
    mean_output
        ``[layers][query_heads][head_size]``: mean over samples and positions of each head's output before `o_proj`.
    """

    format: Literal["vhserve.head-profile"] = PROFILE_FORMAT
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
    mean_output: Float32Array | None = None

    @property
    def image_backend(self) -> str | None:
        """Which of transformers' backends resized the pictures; None where `settings`, which are free, do not say."""
        found = self.settings.get("image_backend")
        return found if isinstance(found, str) and found else None

    def check_shared(self) -> None:
        """Refuse fields at odds with one another."""
        shape = (self.geometry.layers, self.geometry.query_heads, self.geometry.head_size)
        if self.mean_output is not None and self.mean_output.shape != shape:
            found = f"has shape {list(self.mean_output.shape)}"
            raise defect(WrongShape, "mean_output", found, expected=f"{list(shape)} (layers, query heads, head size)")
        if self.samples_with_box > self.samples:
            raise defect(WrongValue, "samples_with_box", f"is {self.samples_with_box}", expected="at most `samples`")


class HeadProfile(Calibration):
    """A calibration run's result; see FORMAT.md.

    Attributes
    ----------
    rankings
        By name; ``score`` is always there.
    """

    version: Literal[2] = 2
    rankings: dict[str, Ranking]

    # The digest of these contents, and that of the file of an earlier version that they were read from.
    _read_from: tuple[str, str] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, ranking in self.rankings.items():
            path = f"rankings.{name}" if name.isidentifier() else f"rankings[{name!a:.60}]"
            if not is_well_formed(name):
                raise defect(WrongValue, path, "is not a ranking's name", expected=WELL_FORMED)
            for key, rows in ranking.tables.items():
                check_rows(rows, self.geometry, f"{path}.tables.{key}")
                _check_range(name, rows, f"{path}.tables.{key}")
            if ranking.group_tables is not None and self.geometry.group_size == 1:
                found = "is given for a model whose KV groups are single heads"
                raise defect(WrongValue, f"{path}.group_tables", found, expected="no such field")
            for key, rows in (ranking.group_tables or {}).items():
                check_rows(rows, self.geometry, f"{path}.group_tables.{key}", groups=True)
                _check_range(name, rows, f"{path}.group_tables.{key}")
        if "score" not in self.rankings:
            raise defect(MissingField, "rankings.score", "is missing", expected="every field of FORMAT.md")
        if ALL not in self.rankings["score"].tables:
            raise defect(MissingField, f"rankings.score.tables.{ALL}", "is missing", expected="one table for score")
        self.check_shared()
        if "box_weight" in self.rankings and not self.samples_with_box:
            expected = "no such ranking"
            raise defect(WrongValue, "rankings.box_weight", "is given without a sample with a box", expected=expected)
        return self

    def scores(self) -> npt.NDArray[np.float64]:
        """Head scores, ``(layers, query_heads)``; higher means more visual: keep."""
        return np.array(self.rankings["score"].tables[ALL], dtype=np.float64)

    @property
    def digest(self) -> str:
        """``sha256:…`` of the canonical bytes; as long as nothing changes, of those of the version it was read from."""
        own = canonical.digest(self)
        return self._read_from[1] if self._read_from and self._read_from[0] == own else own

    def read_from(self, digest: str) -> Self:
        """This profile, with the digest of the file of an earlier version that holds the same."""
        self._read_from = (canonical.digest(self), digest)
        return self


def _check_range(name: str, rows: Rows, path: str) -> None:
    """Refuse a value that a ranking of this name may not have."""
    for layer, head, expected in out_of_range(name, rows):
        raise defect(WrongValue, f"{path}[{layer}][{head}]", f"is {rows[layer][head]:g}", expected=expected)


def check_rows(rows: Sequence[Sequence[object]], geometry: ModelGeometry, path: str, *, groups: bool = False) -> None:
    """Refuse a table that is not ``[layers][query_heads]``, or of KV groups ``[layers][kv_heads]``.

    Raises
    ------
    PydanticCustomError
        Becomes `WrongShape` with the table's, or the row's, path.
    """
    if len(rows) != geometry.layers:
        raise defect(WrongShape, path, f"has {len(rows)} rows", expected=f"{geometry.layers}, one for each layer")
    width, each = (geometry.kv_heads, "KV head") if groups else (geometry.query_heads, "head")
    for layer, row in enumerate(rows):
        if len(row) != width:
            found = f"has {len(row)} entries"
            raise defect(WrongShape, f"{path}[{layer}]", found, expected=f"{width}, one for each {each}")
