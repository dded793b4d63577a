"""Concentration C: how narrow a head's attention is within the image (paper section 4; DESIGN.md section 3).

Works on rows alone: does not know models, prompts or files.
"""

import math

from torch import Tensor

from calibrate.scoring.scorers.base import EPSILON, LayerSignals, RowScorer


class Concentration(RowScorer):
    """C: 0 for attention spread evenly over the image tokens, 1 for all of it on one; higher is narrower: keep."""

    name = "concentration"

    def layer_values(self, layer: LayerSignals) -> Tensor:
        """C of one layer, `(batch, query heads)`."""
        return concentration(layer.row, layer.image, layer.epsilon)


def concentration(row: Tensor, image: Tensor, epsilon: float = EPSILON) -> Tensor:
    """C = 1 − H / log m, with H = −Σ p log(p + ε) and p = a / (A + ε) over the m image tokens, clamped to [0, 1].

    p is renormalised, so that C does not grow with A. A sample with one image token has C = 1.

    Parameters
    ----------
    row
        Attention, shape `(batch, heads, n)`.
    image
        Which positions are image tokens, shape `(batch, n)`; m is counted per sample.

    Returns
    -------
    Shape `(batch, heads)`; higher is narrower.
    """
    seen = row * image.to(row)[:, None]
    p = seen / (seen.sum(-1, keepdim=True) + epsilon)
    entropy = -(p * (p + epsilon).log()).sum(-1)
    most = image.sum(-1, keepdim=True).to(row).log().clamp(min=math.log(2))
    return (1 - entropy / most).clamp(0, 1)
