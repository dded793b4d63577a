"""Scores of heads from attention rows: image weight A, box weight, concentration C, head score S.

Owns the formulas (paper section 4; DESIGN.md section 3 where the public text has lost them). Works on rows alone:
does not know models, prompts or files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

LayerFunction = Literal["inverse", "none"]
LAYER_FUNCTIONS: Final[tuple[LayerFunction, ...]] = get_args(LayerFunction)

EPSILON: Final = 1e-10
"""Added where the formulas divide and take logarithms; uniform attention over 3,000 tokens still gives C < 1e-6."""


@dataclass(frozen=True)
class HeadSamples:
    """Scores of every head for every sample, each of shape `(layers, batch, query heads)`, float64.

    Attributes
    ----------
    image_weight
        A: share of attention on image tokens, 0 to 1.
    box_weight
        Share on image tokens inside the box; 0 for samples without one.
    concentration
        C: 0 for attention spread evenly over the image tokens, 1 for all of it on one; higher is narrower.
    score
        S = f(layer) · A · C; higher means more visual.
    """

    image_weight: Tensor
    box_weight: Tensor
    concentration: Tensor
    score: Tensor


def score_rows(
    rows: Sequence[Tensor],
    image: Tensor,
    box: Tensor,
    layer_function: LayerFunction = "inverse",
    epsilon: float = EPSILON,
) -> HeadSamples:
    """Score every head on every sample of a batch.

    Parameters
    ----------
    rows
        For each layer the attention of the last prompt position, shape `(batch, query heads, n)`.
    image, box
        Which positions are image tokens, and which of them lie inside the box, shape `(batch, n)`.
    layer_function
        f: `inverse` is 1 / (layer + 1), `none` is 1.
    epsilon
        See `concentration`.
    """
    if rows[0].device.type == "mps":  # Metal has no float64
        rows, image, box = [row.cpu() for row in rows], image.cpu(), box.cpu()
    weight, inside, narrow = [], [], []
    for row in rows:
        exact = row.double()
        weight.append(attention_on(exact, image))
        inside.append(attention_on(exact, box))
        narrow.append(concentration(exact, image, epsilon))
    a, c = torch.stack(weight), torch.stack(narrow)
    factor = layer_factors(len(rows), layer_function).to(a)
    return HeadSamples(a, torch.stack(inside), c, factor[:, None, None] * a * c)


def attention_on(row: Tensor, positions: Tensor) -> Tensor:
    """Share of attention on some positions: `(batch, heads, n)` and `(batch, n)` to `(batch, heads)`."""
    return (row @ positions.to(row)[:, :, None]).squeeze(-1)


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


def layer_factors(layers: int, layer_function: LayerFunction) -> Tensor:
    """f(layer) for every layer, shape `(layers,)`, float64."""
    if layer_function == "none":
        return torch.ones(layers, dtype=torch.float64)
    return 1 / torch.arange(1, layers + 1, dtype=torch.float64)
