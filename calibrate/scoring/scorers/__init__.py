"""The head scorers: one file each, registered here by name.

Owns the registry. How to add one is said in CONTRIBUTING.md. Does not know how values become a profile.
"""

from typing import Final

from calibrate.scoring.scorers.base import HeadScorer
from calibrate.scoring.scorers.box_weight import BoxWeight
from calibrate.scoring.scorers.concentration import Concentration
from calibrate.scoring.scorers.effect import Effect
from calibrate.scoring.scorers.gradient import Gradient
from calibrate.scoring.scorers.image_weight import ImageWeight
from calibrate.scoring.scorers.score import Score
from profiles.names import TREATED
from profiles.ranking import ALL, is_well_formed

__all__ = ["SCORERS", "active_scorers", "register"]

SCORERS: Final[dict[str, HeadScorer]] = {}
"""All scorers by name; what a calibration run measures, and the tests go through."""


def register(scorer: HeadScorer) -> None:
    """Make a calibration run measure a scorer.

    Raises
    ------
    ValueError
        Its name is taken or malformed, or its tables are neither `all` alone nor treatments.
    """
    if scorer.name in SCORERS or not is_well_formed(scorer.name):
        raise ValueError(f"{scorer.name!r} is taken, or is no name for a ranking")
    if scorer.tables != (ALL,) and not (scorer.tables and {*scorer.tables} <= {*TREATED}):
        raise ValueError(f"{scorer.name} has the tables {scorer.tables}: neither {ALL} alone, nor treatments")
    SCORERS[scorer.name] = scorer


def active_scorers(*, effects: bool) -> list[HeadScorer]:
    """The scorers of a run: all, but without `effects` none that needs the answer's gradient."""
    return [scorer for scorer in SCORERS.values() if effects or "answer_gradient" not in scorer.needs]


for _scorer in (Score(), ImageWeight(), Concentration(), BoxWeight(), Effect(), Gradient()):
    register(_scorer)
