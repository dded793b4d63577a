"""Box weight: the share of a head's attention that falls on image tokens inside the question's box.

Does not know where boxes come from (`calibrate.models.boxes`).
"""

from torch import Tensor

from calibrate.scoring.scorers.base import LayerSignals, RowScorer
from calibrate.scoring.scorers.image_weight import attention_on


class BoxWeight(RowScorer):
    """Σ a_i over image tokens in the box, 0 to 1, over the samples that have one; higher means keep."""

    name = "box_weight"
    needs = frozenset({"attention_rows", "box"})

    def layer_values(self, layer: LayerSignals) -> Tensor:
        """Box weight of one layer, `(batch, query heads)`; 0 for samples without a box."""
        return attention_on(layer.row, layer.box)
