"""The paper's head score S = f(layer) · A · C (section 4; DESIGN.md section 3 where the public text has lost formulas).

Owns f. A and C are the scorers `image_weight` and `concentration`.
"""

from torch import Tensor

from calibrate.scoring.scorers.base import LayerSignals, RowScorer
from calibrate.scoring.scorers.concentration import Concentration
from calibrate.scoring.scorers.image_weight import ImageWeight
from profiles.names import LayerFunction


class Score(RowScorer):
    """S, at least 0; higher means more visual: keep."""

    name = "score"

    def layer_values(self, layer: LayerSignals) -> Tensor:
        """S of one layer, `(batch, query heads)`."""
        factor = layer_factor(layer.layer, layer.layer_function)
        return factor * layer.of(ImageWeight()) * layer.of(Concentration())


def layer_factor(layer: int, layer_function: LayerFunction) -> float:
    """f of a layer: `inverse` is 1 / (layer + 1), `none` is 1."""
    return 1.0 if layer_function == "none" else 1 / (layer + 1)
