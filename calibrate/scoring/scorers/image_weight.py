"""Image weight A: the share of a head's attention that falls on image tokens (paper section 4).

Owns the sum over positions that other scorers share. Does not know how attention rows come about.
"""

from torch import Tensor

from calibrate.scoring.scorers.base import LayerSignals, RowScorer


class ImageWeight(RowScorer):
    """A = Σ a_i over image tokens, 0 to 1; higher means that the head looks more at the image: keep."""

    name = "image_weight"

    def layer_values(self, layer: LayerSignals) -> Tensor:
        """A of one layer, `(batch, query heads)`."""
        return attention_on(layer.row, layer.image)


def attention_on(row: Tensor, positions: Tensor) -> Tensor:
    """Share of attention on some positions: `(batch, heads, n)` and `(batch, n)` to `(batch, heads)`."""
    return (row @ positions.to(row)[:, :, None]).squeeze(-1)
