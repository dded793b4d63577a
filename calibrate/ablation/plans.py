"""Which heads an ablation treats: the rows of the paper's table, or of a curve, as pruning plans made from a profile.

Owns the lists of rows. How heads are ranked and drawn is the planner's: a row is what `vhserve plan` would serve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from calibrate.ablation.treatments import ABLATION_TREATMENTS
from profiles.errors import WrongValue
from profiles.geometry import ModelGeometry, stage_layers
from profiles.head_profile import HeadProfile
from profiles.names import STAGES, Ablated, Granularity, StageOrAll
from profiles.planning.budget import check_budgets, heads_of
from profiles.planning.planner import make_plan
from profiles.planning.units import unit_size
from profiles.pruning_plan import PruningPlan
from profiles.treatments import FULL

AblationSelect = Literal["top", "bottom", "others", "random"]
"""Highest ranked, lowest ranked; drawn among those that are not the highest ranked, or among all, of a stage."""


class RowLayout(NamedTuple):
    """Rows of an ablation, each a way to choose heads and where; and the budgets of each row if none are given."""

    rows: tuple[tuple[AblationSelect, StageOrAll], ...]
    budgets: tuple[str, ...]

    def budgets_of(self, geometry: ModelGeometry, granularity: Granularity) -> tuple[str, ...]:
        """The budgets; numbers of heads as 1, 2 and 4 units where several heads are treated together."""
        size = unit_size(geometry, granularity)
        if size == 1 or any(budget.endswith("%") for budget in self.budgets):
            return self.budgets
        return tuple(str(units * size) for units in (1, 2, 4))


TABLE: Final = RowLayout(
    tuple((select, stage) for stage in STAGES for select in ("top", "others", "random", "bottom")), ("4", "8", "16")
)
"""The paper's table: in each stage the highest ranked heads, as many others, random and lowest ranked ones."""

SHORT: Final = RowLayout(
    (("top", "early"), ("top", "middle"), ("top", "late"), ("bottom", "late"), ("random", "late")), ("4", "8", "16")
)
"""Of the table, what costs a third of it: highest ranked heads of each stage, the controls in the late one only."""

CURVE: Final = RowLayout(
    (
        *(("bottom", "late"), ("random", "late"), ("top", "late")),
        *(("bottom", "all"), ("random", "all"), ("top", "all")),
    ),
    tuple(f"{percent:g}%" for percent in (12.5, 25, 37.5, 50, 62.5, 75, 87.5, 100)),
)
"""Accuracy over the share of heads, in the late stage and in all."""


SHORT_CURVE: Final = RowLayout((("bottom", "all"), ("random", "all")), CURVE.budgets)
"""Of the curve, what a plan over all layers would treat, and its control; a third of the cost."""


@dataclass(frozen=True)
class Configuration:
    """Heads to treat together.

    Attributes
    ----------
    k, share
        Number of heads, and their share of the stage's heads.
    seed
        Of a random draw; else `None`.
    how
        What is done to them.
    plan
        What serving them so would need; with `uniform`, which cannot be served, it removes them.
    """

    select: AblationSelect
    stage: StageOrAll
    k: int
    share: float
    seed: int | None
    how: Ablated
    plan: PruningPlan

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Treated heads, `(layer, head)`, in order."""
        return self.plan.heads(ABLATION_TREATMENTS[self.how].plan)

    @property
    def treatments(self) -> list[list[str]]:
        """`[layers][query_heads]`, for `calibrate.masking.treatments.treated`."""
        masking = ABLATION_TREATMENTS[self.how].masking
        return [[one if one == FULL.name else masking for one in row] for row in self.plan.treatments]


def configurations(
    profile: HeadProfile,
    budgets: Sequence[str],
    *,
    shape: RowLayout = TABLE,
    draws: int,
    seed: int,
    granularity: Granularity,
    how: Ablated = "removed",
    rank_by: str = "score",
) -> list[Configuration]:
    """Every row of a shape for every budget, random rows once for each draw.

    `others` are left out where fewer than the budget are there.

    Parameters
    ----------
    budgets
        Numbers of heads, or percentages of each row's stage.

    Raises
    ------
    BudgetTooLarge
        A budget is larger than a stage.
    WrongValue
        A budget comes to no head, or twice to the same, or is no multiple of what is treated together.
    MeansMissing, RankingMissing
        The profile was made without means, or without the table to rank by.
    """
    ks = {stage: _numbers(profile, budgets, stage, granularity) for _, stage in shape.rows}
    heads = {stage: len(stage_layers(stage, profile.geometry.layers)) * profile.geometry.query_heads for stage in ks}

    treatment = ABLATION_TREATMENTS[how]

    def plan(select: AblationSelect, stage: StageOrAll, k: int, draw: int | None) -> PruningPlan:
        return make_plan(
            profile,
            budgets={treatment.plan: k},
            stage=stage,
            select="random" if select == "others" else select,
            protect_top=0,
            seed=draw or 0,
            granularity=granularity,
            compensation=treatment.compensation,
            rank_by=rank_by,
            avoid=plan("top", stage, k, None).heads(treatment.plan) if select == "others" else (),
        )

    return [
        Configuration(select, stage, k, k / heads[stage], draw, how, plan(select, stage, k, draw))
        for select, stage in shape.rows
        for k in ks[stage]
        if select != "others" or 2 * k <= heads[stage]
        for draw in (range(seed, seed + draws) if select in ("random", "others") else (None,))
    ]


def _numbers(profile: HeadProfile, budgets: Sequence[str], stage: StageOrAll, granularity: Granularity) -> list[int]:
    numbers = [heads_of(budget, "k", profile.geometry, stage, granularity) for budget in budgets]
    if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise WrongValue(
            f"-k is {','.join(budgets)}, which comes to {', '.join(map(str, numbers)) or 'no'} heads of {stage}",
            expected="numbers of heads, or percentages of a stage's heads, each once",
            fix="give -k 4,8,16",
        )
    check_budgets(budgets, "k", profile.geometry, granularity, (stage,))
    return sorted(numbers)
