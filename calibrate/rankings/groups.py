"""The groups of heads that a comparison of rankings takes away together, drawn at random.

Owns the draw, and the refusal of groups that a model cannot hold. Knows a model's sizes; imports no torch.
"""

from dataclasses import dataclass

import numpy as np

from profiles.errors import BudgetTooLarge
from profiles.geometry import ModelGeometry


@dataclass(frozen=True)
class HeadGroups:
    """Groups of heads to take away together: how many, of how many heads, drawn by which seed."""

    number: int = 64
    size: int = 8
    seed: int = 0


def draw_groups(geometry: ModelGeometry, groups: HeadGroups) -> list[list[tuple[int, int]]]:
    """Groups of different heads, anywhere in the model.

    Raises
    ------
    BudgetTooLarge
    """
    check_groups(geometry, groups)
    rng = np.random.default_rng(groups.seed)
    drawn = [rng.choice(geometry.heads, groups.size, replace=False) for _ in range(groups.number)]
    return [sorted(divmod(int(head), geometry.query_heads) for head in heads) for heads in drawn]


def check_groups(geometry: ModelGeometry, groups: HeadGroups) -> None:
    """Refuse groups that leave a model no head.

    Raises
    ------
    BudgetTooLarge
    """
    if groups.size >= geometry.heads:
        raise BudgetTooLarge(
            f"groups have {groups.size} heads, but the model has {geometry.heads}",
            expected=f"at most {geometry.heads - 1}",
            fix="give a smaller --group-size",
        )
