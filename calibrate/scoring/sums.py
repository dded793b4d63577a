"""What a calibration run adds up: per-head sums over samples, in float64.

Owns the accumulation, its saving form (named arrays) and the means at the end. Does not know which scorers there are,
nor files, models or processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from calibrate.models.batches import Batch
from calibrate.scoring.attention_rows import AttentionRows
from calibrate.scoring.scorers.base import BatchSignals, HeadScorer
from profiles.geometry import ModelGeometry
from profiles.ranking import Ranking
from profiles.treatments import TREATMENTS

Array = npt.NDArray[np.float64]

COUNTS = ("samples", "with_box", "positions")


class Sums:
    """Sums over the samples seen so far.

    Attributes
    ----------
    scorers
        Whose values are added up.
    samples, with_box, positions
        Samples; those with a box that could be mapped; prompt positions.
    arrays
        By name: the counts, shape `()`; for each table of each scorer, `name.table`, shape `(layers, query heads)`; of
        a grouped-query model, for each of those that measure groups, `name.table.groups`, shape `(layers, KV heads)`;
        and `output`, shape `(layers, query heads, head size)`.
    """

    def __init__(self, arrays: Mapping[str, Array], scorers: Sequence[HeadScorer]) -> None:
        self.arrays: dict[str, Array] = dict(arrays)
        self.scorers = tuple(scorers)

    @classmethod
    def empty(cls, geometry: ModelGeometry, scorers: Sequence[HeadScorer]) -> "Sums":
        heads = (geometry.layers, geometry.query_heads)
        tables = [f"{scorer.name}.{table}" for scorer in scorers for table in scorer.tables]
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(COUNTS, ()) | dict.fromkeys(tables, heads)
        if geometry.group_size > 1:
            groups = (geometry.layers, geometry.kv_heads)
            shapes |= {_of_groups(scorer, table): groups for scorer in _measuring(scorers) for table in scorer.tables}
        shapes["output"] = (*heads, geometry.head_size)
        return cls({name: np.zeros(shape) for name, shape in shapes.items()}, scorers)

    @property
    def samples(self) -> int:
        return int(self.arrays["samples"])

    @property
    def with_box(self) -> int:
        return int(self.arrays["with_box"])

    @property
    def positions(self) -> int:
        return int(self.arrays["positions"])

    def plus(self, batch: Batch, rows: AttentionRows, signals: BatchSignals) -> "Sums":
        """These sums with one batch more."""
        new: dict[str, Any] = {"samples": len(batch), "with_box": int(batch.has_box.sum()), "positions": rows.positions}
        for scorer in self.scorers:
            values = scorer.values(signals)
            new |= {f"{scorer.name}.{table}": _over_samples(values[table]) for table in scorer.tables}
        for scorer in _measuring(self.scorers):
            values = scorer.group_values(signals)
            new |= {_of_groups(scorer, table): _over_samples(values[table]) for table in scorer.tables}
        new["output"] = rows.output_sum.cpu().numpy()
        return Sums({name: np.asarray(array + new[name]) for name, array in self.arrays.items()}, self.scorers)

    def finite(self) -> bool:
        """Whether no sum has become NaN or infinite."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays.values())

    def rankings(self, block_size: int | None) -> dict[str, Ranking]:
        """Means over the samples (of what needs a box: over those with one, and none without any); higher means keep.

        Of treatments of replies only, none where no answer had a token of the reply before it.

        Parameters
        ----------
        block_size
            Of the image blocks, for the scorers that need it.
        """
        found = {}
        for scorer in self.scorers:
            count = self.with_box if "box" in scorer.needs else self.samples
            if not count:
                continue
            sign = 1 if scorer.direction == "higher" else -1
            sums = {table: self.arrays[f"{scorer.name}.{table}"] for table in scorer.tables}
            tables = {table: (sign * one / count).tolist() for table, one in sums.items() if _is_known(table, one)}
            groups = {
                table: self.arrays[name] for table in tables if (name := _of_groups(scorer, table)) in self.arrays
            }
            found[scorer.name] = Ranking(
                tables=tables,
                group_tables={table: (sign * one / count).tolist() for table, one in groups.items()} or None,
                block_size=block_size if "image_blocks" in scorer.needs else None,
            )
        return found

    def mean_output(self) -> npt.NDArray[np.float32]:
        """Mean over samples and positions of each head's output before `o_proj`."""
        return (self.arrays["output"] / max(self.positions, 1)).astype(np.float32)


def _measuring(scorers: Sequence[HeadScorer]) -> list[HeadScorer]:
    return [scorer for scorer in scorers if scorer.measures_groups]


def _of_groups(scorer: HeadScorer, table: str) -> str:
    """Name of the sums of KV groups."""
    return f"{scorer.name}.{table}.groups"


def _is_known(table: str, sums: Array) -> bool:
    """Whether a table says anything: heads that lose the image in replies do nothing where no answer has a reply."""
    return table not in TREATMENTS or TREATMENTS[table].changes_prompt or bool(sums.any())


def _over_samples(values: Tensor) -> Array:
    """Sum `(layers, batch, heads or KV heads)` over the batch."""
    return values.cpu().numpy().sum(axis=1)
