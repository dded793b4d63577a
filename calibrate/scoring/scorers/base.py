"""What a head scorer is: its name, which values mean keep, what it needs, and its value for each head of a batch.

Owns the interface, and what a scorer gets to see of a batch. Does not know the scorers (`calibrate.scoring.scorers`),
how passes are run (`calibrate.scoring.calibration`), nor how values are added up (`calibrate.scoring.sums`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor

from calibrate.scoring.effects import EffectSamples
from profiles.names import LayerFunction
from profiles.ranking import ALL

EPSILON: Final = 1e-10
"""Added where the formulas divide and take logarithms; uniform attention over 3,000 tokens still gives C < 1e-6."""

Need = Literal["attention_rows", "box", "answer_gradient", "image_blocks"]
"""The attention rows of the last prompt position; a box, so that only samples with one count; the pass with the
gradient of the answer (left out by `vhserve calibrate --no-effects`); the size of image blocks, which the profile then
records."""


@dataclass(frozen=True)
class LayerSignals:
    """One layer's attention in a batch.

    Attributes
    ----------
    layer
        From 0.
    attention
        Of the last prompt position, shape `(batch, query heads, n)`; each row sums to 1, and is 0 on padding.
    image, box
        Which positions are image tokens, and which of them lie inside the question's box, shape `(batch, n)`.
    layer_function, epsilon
        Of the head score's formula.
    """

    layer: int
    attention: Tensor
    image: Tensor
    box: Tensor
    layer_function: LayerFunction = "inverse"
    epsilon: float = EPSILON
    _known: dict[str, Tensor] = field(default_factory=dict)

    @property
    def row(self) -> Tensor:
        """`attention` as float64."""
        return self.attention.double()

    def of(self, scorer: "RowScorer") -> Tensor:
        """A row scorer's values for this layer, `(batch, query heads)`; computed once."""
        if scorer.name not in self._known:
            self._known[scorer.name] = scorer.layer_values(self)
        return self._known[scorer.name]


class BatchSignals:
    """What the forward passes of one batch showed.

    Parameters
    ----------
    rows
        For each layer the attention of the last prompt position, shape `(batch, query heads, n)`.
    image, box
        Which positions are image tokens, and which of them lie inside the box, shape `(batch, n)`.
    effects
        What the pass with the answer's gradient found; None where it was not run.
    """

    def __init__(
        self,
        rows: Sequence[Tensor],
        image: Tensor,
        box: Tensor,
        *,
        effects: EffectSamples | None = None,
        layer_function: LayerFunction = "inverse",
        epsilon: float = EPSILON,
    ) -> None:
        if image.device.type == "mps":  # Metal has no float64
            rows, image, box = [row.cpu() for row in rows], image.cpu(), box.cpu()
        self.layers = [LayerSignals(layer, row, image, box, layer_function, epsilon) for layer, row in enumerate(rows)]
        self._effects = effects

    @property
    def effects(self) -> EffectSamples:
        """What the pass with the answer's gradient found, for scorers that need it."""
        if self._effects is None:
            raise ValueError("the pass with the answer's gradient was not run")
        return self._effects


class HeadScorer(ABC):
    """A measure of what a query head is worth.

    Attributes
    ----------
    name
        Of its ranking in the profile, for `--rank-by`; see FORMAT.md for what a name may be.
    direction
        Whether `higher` or `lower` values mean: keep this head. In a profile higher always does.
    needs
        What must be run or known for it.
    tables
        What it has values for: `all`, if they are the same for every treatment, or the treatments that it tells apart.
    measures_groups
        Whether it measures KV groups as such (`group_values`); else a group is worth the mean of its query heads.
    """

    name: ClassVar[str]
    direction: ClassVar[Literal["higher", "lower"]] = "higher"
    needs: ClassVar[frozenset[Need]]
    tables: ClassVar[tuple[str, ...]] = (ALL,)
    measures_groups: ClassVar[bool] = False

    @abstractmethod
    def values(self, signals: BatchSignals) -> Mapping[str, Tensor]:
        """Value of every head for every sample of a batch.

        Returns
        -------
        For each of `tables` a tensor `(layers, batch, query heads)`, float64; with the need `box`, 0 for samples
        without one.
        """

    def group_values(self, signals: BatchSignals) -> Mapping[str, Tensor]:
        """Value of every KV group, all of whose query heads are treated at once; of scorers that measure groups.

        Returns
        -------
        For each of `tables` a tensor `(layers, batch, KV heads)`, float64.
        """
        raise NotImplementedError(f"{self.name} does not measure KV groups")


class RowScorer(HeadScorer):
    """A scorer that looks at one layer's attention rows at a time."""

    needs: ClassVar[frozenset[Need]] = frozenset({"attention_rows"})

    @abstractmethod
    def layer_values(self, layer: LayerSignals) -> Tensor:
        """Value of every head of a layer for every sample, `(batch, query heads)`, float64."""

    def values(self, signals: BatchSignals) -> Mapping[str, Tensor]:
        """As `HeadScorer.values`."""
        return {ALL: torch.stack([layer.of(self) for layer in signals.layers])}
