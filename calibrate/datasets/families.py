"""Question families: the name that stands for all of them, and which samples belong to which.

Owns the grouping. Does not know what is counted in a family.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

ALL: Final = "all"
"""Name of the family that holds every sample, and of those that are in no other."""

Right = npt.NDArray[np.bool_]
"""`(samples,)`: whether each answer is correct."""


Item = TypeVar("Item")


def grouped(items: Iterable[Item], family_of: Callable[[Item], str]) -> dict[str, list[Item]]:
    """Items of each family, in order of appearance; every item in `all`, which comes last."""
    groups: dict[str, list[Item]] = {}
    everything = list(items)
    for one in everything:
        if (family := family_of(one)) != ALL:
            groups.setdefault(family, []).append(one)
    return groups | {ALL: everything}


def by_family(families: Sequence[str]) -> dict[str, Right]:
    """Which samples belong to each family, in order of appearance; `all` comes first."""
    names = np.array(families)
    return {name: names == name for name in dict.fromkeys((ALL, *families))} | {ALL: np.ones(len(names), np.bool_)}
