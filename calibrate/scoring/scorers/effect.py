"""Effect: what treating a head would do to the answer, to first order, for each treatment.

The formula, and the pass that it takes, are in `calibrate.scoring.effects`.
"""

from collections.abc import Mapping

from torch import Tensor

from calibrate.scoring.effects import EFFECTS
from calibrate.scoring.scorers.base import BatchSignals, HeadScorer


class Effect(HeadScorer):
    """Size of the change in the log-odds of the right answer, in nats; higher means worth more: keep."""

    name = "effect"
    needs = frozenset({"answer_gradient", "image_blocks"})
    tables = EFFECTS
    measures_groups = True

    def values(self, signals: BatchSignals) -> Mapping[str, Tensor]:
        """|Σ g·Δ| of every head, `(layers, batch, query heads)`, by treatment."""
        return signals.effects.by_treatment

    def group_values(self, signals: BatchSignals) -> Mapping[str, Tensor]:
        """|Σ g·Δ| of every KV group, `(layers, batch, KV heads)`, by treatment."""
        return signals.effects.of_groups
