"""Which heads the ablation table removes: the rows of the paper's table, as pruning plans made from a profile.

Owns the list of rows. How heads are ranked and drawn is the planner's: a row is what `vhserve plan` would serve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from profiles.errors import WrongValue
from profiles.geometry import Stage
from profiles.head_profile import HeadProfile
from profiles.planner import make_plan
from profiles.pruning_plan import Granularity, PruningPlan

Select = Literal["top", "bottom", "random"]
How = Literal["removed", "mean", "uniform", "text_only"]
"""What is done to heads: they put out zero, or their mean in the profile; attend uniformly, as under the paper's own
mask (which cannot be served); or attend to text only."""

ROWS: Final[tuple[tuple[Select, Stage], ...]] = (
    ("top", "early"),
    ("top", "middle"),
    ("top", "late"),
    ("bottom", "late"),
    ("random", "late"),
)
"""Rows of the table: highest scores of each stage, and lowest scores and random heads of the late one."""


@dataclass(frozen=True)
class Configuration:
    """Heads to treat together.

    Attributes
    ----------
    k
        Number of heads.
    seed
        Of a random draw; else `None`.
    how
        What is done to them.
    plan
        What serving them so would need; with `uniform`, which cannot be served, it removes them.
    """

    select: Select
    stage: Stage
    k: int
    seed: int | None
    how: How
    plan: PruningPlan

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Treated heads, `(layer, head)`, in order."""
        return self.plan.heads("text_only" if self.how == "text_only" else "removed")

    @property
    def treatments(self) -> list[list[str]]:
        """`[layers][query_heads]`, for `calibrate.treatments.treated`."""
        name = "uniform" if self.how == "uniform" else None
        return [[name if name and one != "full" else one for one in row] for row in self.plan.treatments]


def configurations(
    profile: HeadProfile,
    ks: Sequence[int],
    *,
    draws: int,
    seed: int,
    granularity: Granularity,
    how: How = "removed",
) -> list[Configuration]:
    """Every row of the table for every k, random rows once for each draw.

    Raises
    ------
    BudgetTooLarge
        A k is larger than a stage.
    WrongValue
        A k is not positive, stands twice, or is no multiple of what is treated together.
    MeansMissing
        `mean`, and a profile without mean outputs.
    """
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise WrongValue(
            f"--k is {','.join(map(str, ks))}", expected="positive numbers, each once", fix="give --k 4,8,16"
        )
    return [
        Configuration(
            select,
            stage,
            k,
            draw,
            how,
            make_plan(
                profile,
                remove=0 if how == "text_only" else k,
                text_only=k if how == "text_only" else 0,
                stage=stage,
                select=select,
                protect_top=0,
                seed=draw or 0,
                granularity=granularity,
                compensation="mean" if how == "mean" else "none",
            ),
        )
        for select, stage in ROWS
        for k in sorted(ks)
        for draw in (range(seed, seed + draws) if select == "random" else (None,))
    ]
