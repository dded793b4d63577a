"""Gradient: the importance of Michel et al., "Are Sixteen Heads Really Better than One?" (NeurIPS 2019).

The pass that it takes is that of `effect` (`calibrate.scoring.effects`).
"""

from collections.abc import Mapping

from torch import Tensor

from calibrate.scoring.scorers.base import BatchSignals, HeadScorer
from profiles.ranking import ALL


class Gradient(HeadScorer):
    """|∂loss/∂gate|, with the loss −log p of the right answer, in nats; higher means keep.

    With p = σ(log-odds), it is (1 − p) times the effect of removal, exactly.
    """

    name = "gradient"
    needs = frozenset({"answer_gradient"})
    measures_groups = True

    def values(self, signals: BatchSignals) -> Mapping[str, Tensor]:
        """Importance of every head, `(layers, batch, query heads)`."""
        return {ALL: signals.effects.by_treatment["removed"] * signals.effects.miss_probability[None, :, None]}

    def group_values(self, signals: BatchSignals) -> Mapping[str, Tensor]:
        """Importance of every KV group, `(layers, batch, KV heads)`."""
        return {ALL: signals.effects.of_groups["removed"] * signals.effects.miss_probability[None, :, None]}
