"""The document of a comparison of rankings: what heads cost when they were taken away, and how rankings correlate.

Owns the schema. Does not know how anything was measured.
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from calibrate.documents import MeasuredDocument
from calibrate.stats.nothing_right import nothing_right
from profiles.names import Treated
from profiles.strict import Strict

AblatedUnit = Literal["head", "kv_group", "group"]
"""A single head, or KV group of a grouped-query model; or several of them, drawn at random."""
LossMeasure = Literal["log_odds", "accuracy"]

Rho = Annotated[float, Field(ge=-1, le=1)]


class Correlation(Strict):
    """Spearman's rank correlation of a ranking with measured importance.

    Attributes
    ----------
    rho
        Above 0 where heads that the ranking likes better are worth more; None where either is the same for all.
    low, high
        95% interval, by bootstrap of heads (or KV groups, or random groups) and samples together.
    behind_best, behind_best_low, behind_best_high
        How far it lies behind the best ranking, on the same resamples.
    beats_random
        Whether rho lies above 97.5% of the random rankings'.
    """

    ranking: str
    kind: AblatedUnit
    outcome: LossMeasure
    n: PositiveInt
    rho: Rho | None
    low: Rho | None
    high: Rho | None
    behind_best: float | None
    behind_best_low: float | None
    behind_best_high: float | None
    beats_random: bool


class Taken(Strict):
    """Heads taken away together, and what that cost: means over the samples, positive where heads were of use.

    Attributes
    ----------
    heads
        `[layer, head]`.
    log_odds
        Loss of log-odds of the right answer, in nats.
    accuracy
        Loss of accuracy, −1 to 1.
    """

    heads: list[list[NonNegativeInt]]
    log_odds: float
    accuracy: float


class RandomRankings(Strict):
    """Middle and 95% range of rho of random rankings."""

    kind: AblatedUnit
    outcome: LossMeasure
    mean: float | None
    low: float | None
    high: float | None


class RankingComparison(MeasuredDocument):
    """Everything that one run found.

    Attributes
    ----------
    accuracy
        Of the whole model on the samples, 0 to 1.
    heads, groups
        What taking away every single head, or KV group with all its query heads, and every random group of them, costs.
    rankings, absent
        Names of the rankings compared; and of those that the profile lacks, with the reason.
    """

    format: Literal["vhserve.ranking-comparison"] = "vhserve.ranking-comparison"
    version: Literal[1] = 1
    treatment: Treated
    accuracy: float
    heads: list[Taken]
    groups: list[Taken]
    rankings: list[str]
    absent: dict[str, str]
    correlations: list[Correlation]
    random: list[RandomRankings]

    @property
    def single(self) -> AblatedUnit:
        """What was taken away by itself."""
        return self.correlations[0].kind if self.correlations else "head"

    def never_right(self) -> str | None:
        """The line for a whole model that answers nothing right; `None` where it does."""
        return nothing_right("the whole model", (round(self.accuracy * self.samples), self.samples))
