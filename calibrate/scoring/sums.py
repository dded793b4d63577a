"""What a calibration run adds up: per-head sums over samples, in float64.

Owns the accumulation, its saving form (named arrays) and the means at the end. Does not know files, models or
processes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from calibrate.models.prompts import Batch
from calibrate.scoring.attention_rows import AttentionRows
from calibrate.scoring.effects import EffectSamples
from calibrate.scoring.scores import HeadSamples
from profiles.geometry import ModelGeometry
from profiles.ranking import Ranking

Array = npt.NDArray[np.float64]

COUNTS = ("samples", "with_box", "positions")
TABLES = ("image_weight", "box_weight", "concentration", "score")
EFFECTS = ("removed", "text_only", "gradient")


class Sums:
    """Sums over the samples seen so far.

    Attributes
    ----------
    samples, with_box, positions
        Samples; those with a box that could be mapped; prompt positions.
    arrays
        By name: the counts, shape `()`; the tables, and `effect_` and a treatment, shape `(layers, query heads)`; and
        `output`, shape `(layers, query heads, head size)`.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays: dict[str, Array] = dict(arrays)

    @classmethod
    def empty(cls, geometry: ModelGeometry) -> "Sums":
        heads = (geometry.layers, geometry.query_heads)
        tables = (*TABLES, *(f"effect_{name}" for name in EFFECTS))
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(COUNTS, ()) | dict.fromkeys(tables, heads)
        return cls(
            {name: np.zeros(shape) for name, shape in (shapes | {"output": (*heads, geometry.head_size)}).items()}
        )

    @property
    def samples(self) -> int:
        return int(self.arrays["samples"])

    @property
    def with_box(self) -> int:
        return int(self.arrays["with_box"])

    @property
    def positions(self) -> int:
        return int(self.arrays["positions"])

    def plus(
        self, batch: Batch, scores: HeadSamples, rows: AttentionRows, effects: EffectSamples | None = None
    ) -> "Sums":
        """These sums with one batch more."""
        new: dict[str, Any] = {name: _over_samples(getattr(scores, name)) for name in TABLES}
        new |= {"samples": len(batch), "with_box": int(batch.has_box.sum()), "positions": rows.positions}
        new |= {f"effect_{name}": _over_samples(getattr(effects, name)) if effects else 0.0 for name in EFFECTS}
        new["output"] = rows.output_sum.cpu().numpy()
        return Sums({name: np.asarray(array + new[name]) for name, array in self.arrays.items()})

    def finite(self) -> bool:
        """Whether no sum has become NaN or infinite."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays.values())

    def rankings(self, block_size: int | None, *, effects: bool) -> dict[str, Ranking]:
        """Means over the samples; of the box weight, over those with a box, and no such ranking without any."""
        tables = {name: self.arrays[name] / max(self.samples, 1) for name in TABLES if name != "box_weight"}
        if self.with_box:
            tables["box_weight"] = self.arrays["box_weight"] / self.with_box
        found = {name: Ranking.of(table) for name, table in tables.items()}
        if effects:
            removed, text_only, gradient = (self.arrays[f"effect_{name}"] / max(self.samples, 1) for name in EFFECTS)
            by_treatment = {"removed": removed.tolist(), "text_only": text_only.tolist()}
            found |= {"effect": Ranking(tables=by_treatment, block_size=block_size), "gradient": Ranking.of(gradient)}
        return found

    def mean_output(self) -> npt.NDArray[np.float32]:
        """Mean over samples and positions of each head's output before `o_proj`."""
        return (self.arrays["output"] / max(self.positions, 1)).astype(np.float32)


def _over_samples(values: Tensor) -> Array:
    """Sum `(layers, batch, heads)` over the batch."""
    return values.cpu().numpy().sum(axis=1)
