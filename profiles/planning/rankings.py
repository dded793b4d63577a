"""Rankings: the tables of a profile by which heads can be put in order, one for each treatment.

Does not know how an order becomes a plan.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from profiles.errors import RankingMissing
from profiles.head_profile import HeadProfile
from profiles.names import KnownRanking, Treated

Table = npt.NDArray[np.float64]

_CURES = {
    "effect": "calibrate again with --effects",
    "gradient": "calibrate again with --effects",
    "box_weight": "calibrate on a dataset with boxes",
    "sparsemm": "import them with vhserve profile import",
    "duo_attention": "import them with vhserve profile import",
}


def ranking(profile: HeadProfile, rank_by: KnownRanking, treatment: Treated) -> Table:
    """What heads are worth under a treatment, ``(layers, query heads)``; higher means keep.

    Parameters
    ----------
    rank_by
        ``effect``: the measured effect of this treatment. The others are the same for both treatments: ``score``,
        ``image_weight``, ``concentration``, ``box_weight``; ``gradient``, of `effects`; ``sparsemm`` and
        ``duo_attention``, imported.

    Raises
    ------
    RankingMissing
        The profile was made without that table.
    """
    table = _table(profile, rank_by, treatment)
    if table is None:
        raise RankingMissing(
            f"the profile has no {'effects' if rank_by == 'effect' else rank_by}",
            expected=f"a profile with them for --rank-by {rank_by}",
            fix=f"{_CURES.get(rank_by, 'calibrate again')}, or rank by score",
        )
    return np.array(table, dtype=np.float64)


def _table(profile: HeadProfile, rank_by: KnownRanking, treatment: Treated) -> Sequence[Sequence[float]] | None:
    if rank_by in ("sparsemm", "duo_attention"):
        return next((one.scores for one in profile.imported if one.name == rank_by), None)
    if rank_by in ("effect", "gradient"):
        return getattr(profile.effects, treatment if rank_by == "effect" else "gradient", None)
    table: list[list[float]] | None = getattr(profile.heads, rank_by)
    return table
