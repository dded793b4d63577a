"""What a comparison of rankings takes away: units each alone, and groups of them together, drawn at random.

A unit is what a plan treats: a query head, or in a grouped-query model a KV group. Owns the draw, and the refusal of
groups that a model cannot hold. Knows a model's sizes; imports no torch.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from profiles.errors import BudgetTooLarge, WrongValue
from profiles.geometry import ModelGeometry

FEWEST: Final = 3
"""Groups whose ranks can correlate otherwise than fully; of one there is no correlation, of two it is 1 or -1."""


@dataclass(frozen=True)
class HeadGroups:
    """Groups of units to take away together: how many, of how many units, drawn by which seed."""

    number: int = 64
    size: int = 8
    seed: int = 0


def draw_groups(geometry: ModelGeometry, groups: HeadGroups) -> list[list[tuple[int, int]]]:
    """Groups of different units ``(layer, KV head)``, anywhere in the model; in a multi-head model these are heads.

    Raises
    ------
    BudgetTooLarge
    """
    check_groups(geometry, groups)
    rng = np.random.default_rng(groups.seed)
    drawn = [rng.choice(_units(geometry), groups.size, replace=False) for _ in range(groups.number)]
    return [sorted(divmod(int(unit), geometry.kv_heads) for unit in units) for units in drawn]


def usual_size(geometry: ModelGeometry) -> int:
    """Units of a random group where nobody says how many: 8, or all but one of a smaller model."""
    return max(1, min(8, _units(geometry) - 1))


def check_groups(geometry: ModelGeometry, groups: HeadGroups) -> None:
    """Refuse groups that leave a model no head, and fewer than can be ranked.

    Raises
    ------
    BudgetTooLarge, WrongValue
    """
    units, kind = _units(geometry), "heads" if geometry.group_size == 1 else "KV groups"
    if groups.size >= units:
        raise BudgetTooLarge(
            f"groups have {groups.size} {kind}, but the model has {units}",
            expected=f"at most {units - 1}",
            fix="give a smaller --group-size",
        )
    if groups.number < FEWEST:
        raise WrongValue(
            f"--groups is {groups.number}: of so few, any two rankings agree or are opposites",
            expected=f"{FEWEST} or more random groups",
            fix="give --groups 64",
        )


def _units(geometry: ModelGeometry) -> int:
    return geometry.layers * geometry.kv_heads
