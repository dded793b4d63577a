"""Rankings: the tables of a profile by which heads can be put in order, one for each treatment.

Does not know how an order becomes a plan.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from profiles.errors import RankingMissing
from profiles.head_profile import HeadProfile
from profiles.pruning_plan import RankBy, Treatment

Table = npt.NDArray[np.float64]


def ranking(profile: HeadProfile, rank_by: RankBy, treatment: Literal["removed", "text_only"]) -> Table:
    """What heads are worth under a treatment, ``(layers, query heads)``; higher means keep.

    Parameters
    ----------
    rank_by
        ``effect``: the measured effect of this treatment. The others are the same for both treatments: ``score``,
        ``image_weight``, ``concentration``, ``box_weight``.

    Raises
    ------
    RankingMissing
        The profile was made without that table.
    """
    tables = profile.effects if rank_by == "effect" else profile.heads
    name: Treatment | RankBy = treatment if rank_by == "effect" else rank_by
    table = getattr(tables, name, None)
    if table is None:
        cure = {
            "effect": "calibrate again with --effects",
            "box_weight": "calibrate on a dataset with boxes",
        }
        raise RankingMissing(
            f"the profile has no {'effects' if rank_by == 'effect' else rank_by} (null)",
            expected=f"a profile with them for --rank-by {rank_by}",
            fix=f"{cure.get(rank_by, 'calibrate again')}, or rank by score",
        )
    return np.array(table, dtype=np.float64)
