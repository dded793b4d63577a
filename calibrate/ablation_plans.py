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
    """Heads to remove together.

    Attributes
    ----------
    k
        Number of heads.
    seed
        Of a random draw; else `None`.
    plan
        Removes them, without compensation.
    """

    select: Select
    stage: Stage
    k: int
    seed: int | None
    plan: PruningPlan

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Removed heads, `(layer, head)`, in order."""
        return self.plan.heads("removed")


def configurations(
    profile: HeadProfile, ks: Sequence[int], *, draws: int, seed: int, granularity: Granularity
) -> list[Configuration]:
    """Every row of the table for every k, random rows once for each draw.

    Raises
    ------
    BudgetTooLarge
        A k is larger than a stage.
    WrongValue
        A k is not positive, stands twice, or is no multiple of what is removed together.
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
            make_plan(
                profile,
                remove=k,
                stage=stage,
                select=select,
                protect_top=0,
                seed=draw or 0,
                granularity=granularity,
                compensation="none",
            ),
        )
        for select, stage in ROWS
        for k in sorted(ks)
        for draw in (range(seed, seed + draws) if select == "random" else (None,))
    ]
