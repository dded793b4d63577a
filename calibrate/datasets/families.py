"""Question families: the name that stands for all of them, and which samples belong to which.

Owns the grouping. Does not know what is counted in a family.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

ALL: Final = "all"
"""Name of the family that holds every sample."""

Right = npt.NDArray[np.bool_]
"""`(samples,)`: whether each answer is correct."""


def by_family(families: Sequence[str]) -> dict[str, Right]:
    """Which samples belong to each family, in order of appearance; `all` comes first."""
    names = np.array(families)
    return {ALL: np.ones(len(names), np.bool_)} | {name: names == name for name in dict.fromkeys(families)}
