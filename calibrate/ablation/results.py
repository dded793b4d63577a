"""The ablation's document: accuracy with heads removed, each against the unmasked model on the same samples.

Owns the schema and how right and wrong answers become figures. Does not know how they were obtained.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from calibrate.ablation.plans import AblationSelect
from calibrate.datasets.families import Right, by_family
from calibrate.datasets.metrics import Counted, Metric, count
from calibrate.documents import MeasuredDocument
from calibrate.stats.accuracy import Accuracy
from calibrate.stats.nothing_right import nothing_right
from calibrate.stats.paired_tests import PairedCounts
from profiles.names import Ablated, Granularity, StageOrAll
from profiles.ranking import RankingName
from profiles.strict import Strict

Published = dict[str, dict[str, float | None]]

Fraction = Annotated[float, Field(ge=0, le=1)]


class FamilyFigures(Strict):
    """One question family, or `all`: accuracy with its 95% Wilson interval."""

    family: str
    samples: PositiveInt
    correct: NonNegativeInt
    accuracy: Fraction
    low: Fraction
    high: Fraction


class ComparedFigures(FamilyFigures):
    """Figures, and how they differ from the baseline's on the same samples.

    Attributes
    ----------
    difference
        Accuracy minus the baseline's; its 95% interval (Newcombe's method 10) is `difference_low` to `difference_high`.
    only_baseline, only_masked
        Samples that flip: those that only one of the two has right.
    p
        McNemar's exact test, two-sided, of flips being as likely either way.
    """

    difference: float
    difference_low: float
    difference_high: float
    only_baseline: NonNegativeInt
    only_masked: NonNegativeInt
    p: Fraction


class AblationRow(Strict):
    """One set of heads treated.

    Attributes
    ----------
    k, share
        Number of heads, and their share of the stage's heads.
    seed
        Of a random draw.
    heads
        `[layer, head]`.
    published
        By family, `all` last: the figures of the dataset's own metric; empty where that is plain accuracy.
    """

    select: AblationSelect
    stage: StageOrAll
    k: PositiveInt
    share: Fraction
    seed: int | None
    heads: list[list[NonNegativeInt]]
    figures: list[ComparedFigures]
    published: Published


class Ablation(MeasuredDocument):
    """Everything that one run found; `figures` of each row start with the family `all`.

    Attributes
    ----------
    heads_together
        Query heads of a KV group, where whole groups were treated; None where heads were treated one by one.
    treatment
        What was done to heads.
    metric
        How the dataset's authors count (`calibrate.datasets.metrics`).
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"heads_together"})

    format: Literal["vhserve.ablation"] = "vhserve.ablation"
    version: Literal[1] = 1
    granularity: Granularity
    heads_together: PositiveInt | None = None
    rank_by: RankingName
    treatment: Ablated
    metric: Metric
    baseline: list[FamilyFigures]
    baseline_published: Published
    rows: list[AblationRow]

    def never_right(self) -> str | None:
        """The line for a whole model that answers nothing right, in all or in a family; `None` where it does."""
        whole, *families = [(one.family, (one.correct, one.samples)) for one in self.baseline]
        return nothing_right("the whole model", whole[1], dict(families))


def figures(families: Sequence[str], right: Right) -> list[FamilyFigures]:
    """Accuracy of `right`, `(samples,)`, per family; `all` first."""
    return [FamilyFigures(family=family, **_share(right[own])) for family, own in by_family(families).items()]


def published(metric: Metric, counted: Sequence[Counted]) -> Published:
    """Figures of a dataset's own metric, by family, `all` last; none where it is accuracy, which `figures` has."""
    return {} if metric == "accuracy" else count(metric, counted)


def compared(families: Sequence[str], baseline: Right, right: Right) -> list[ComparedFigures]:
    """Accuracy of `right` per family, against `baseline`; both `(samples,)`, of the same samples in the same order."""
    rows = []
    for family, own in by_family(families).items():
        pairs = PairedCounts.of(baseline[own], right[own])
        low, high = pairs.interval
        rows.append(
            ComparedFigures(
                family=family,
                **_share(right[own]),
                difference=pairs.difference,
                difference_low=low,
                difference_high=high,
                only_baseline=pairs.only_first,
                only_masked=pairs.only_second,
                p=pairs.p,
            )
        )
    return rows


def _share(right: Right) -> dict[str, Any]:
    own = Accuracy(int(right.sum()), len(right))
    low, high = own.interval
    return {"samples": own.samples, "correct": own.correct, "accuracy": own.share, "low": low, "high": high}
