"""Rankings of a profile: which there are, and the table of one for a treatment, of query heads or of KV groups.

Does not know how an order becomes a plan.
"""

import numpy as np
import numpy.typing as npt

from profiles.errors import RankingMissing
from profiles.head_profile import HeadProfile
from profiles.names import KNOWN_RANKINGS, Granularity, TreatmentName
from profiles.ranking import Ranking
from profiles.suggestions import did_you_mean
from profiles.treatments import EVICT, TEXT_ONLY, TREATMENTS

Table = npt.NDArray[np.float64]

_CURES = {
    "effect": "calibrate again without --no-effects",
    "gradient": "calibrate again without --no-effects",
    "box_weight": "calibrate on a dataset with boxes",
    "sparsemm": "import them with vhserve profile import",
    "duo_attention": "import them with vhserve profile import",
}


def ranking_names(profile: HeadProfile) -> list[str]:
    """Names of a profile's rankings: those of this release in their usual order, then the others by name."""
    usual = [name for name in KNOWN_RANKINGS if name in profile.rankings]
    return usual + sorted(profile.rankings.keys() - set(usual))


def default_ranking(profile: HeadProfile) -> str:
    """Name of the ranking that a plan is made by unless the user names one: `effect` where the profile has it.

    The paper's score, which every profile has, says how much a head looks at the image, and not what answers lose
    without the head (docs/rankings.md).
    """
    return "effect" if "effect" in profile.rankings else "score"


def stand_in(found: Ranking, treatment: TreatmentName) -> TreatmentName | None:
    """The treatment whose table of a ranking is taken where it has none of this one.

    Heads that lose least without the image lose least without a part of it. None where this one has a table, or no
    other will do.
    """
    one = TREATMENTS[treatment]
    if found.table(treatment) is not None or not one.is_masked:
        return None
    names = [EVICT.name, TEXT_ONLY.name] if one.evicts else [TEXT_ONLY.name]
    return next((name for name in names if found.table(name) is not None), None)


def ranking(profile: HeadProfile, rank_by: str, treatment: TreatmentName = "removed") -> Table:
    """What heads are worth under a treatment, ``(layers, query heads)``; higher means keep.

    Parameters
    ----------
    rank_by
        Name of a ranking of the profile. ``effect`` has a table for each treatment; the others that this release
        makes and imports (`profiles.names.KnownRanking`) have one for all.

    Raises
    ------
    RankingMissing
        The profile was made without that ranking, or has no table of it for this treatment.
    """
    found = profile.rankings.get(rank_by)
    table = found.table(treatment) if found else None
    if found and table is None and (other := stand_in(found, treatment)) is not None:
        table = found.table(other)
    if table is None:
        wrong = f"the profile has no {'effects' if rank_by == 'effect' else rank_by}"
        names = ranking_names(profile)
        cure, rank = _CURES.get(rank_by), f"rank by what it has: {', '.join(names)}"
        if found is None and rank_by not in KNOWN_RANKINGS:
            guess = did_you_mean(rank_by, [*names, *KNOWN_RANKINGS], "name one of these")
            raise RankingMissing(f"the profile has no ranking {rank_by!r}", expected=", ".join(names), fix=guess)
        raise RankingMissing(
            f"{wrong} of {treatment} heads" if found else wrong,
            expected=f"a profile with {rank_by}",
            fix=f"{cure}, or {rank}" if cure else f"calibrate again, or {rank}",
        )
    return np.array(table, dtype=np.float64)


def group_ranking(profile: HeadProfile, rank_by: str, treatment: TreatmentName = "removed") -> Table:
    """What KV groups are worth under a treatment of all their query heads, ``(layers, KV heads)``; higher means keep.

    As measured of groups; of a ranking that does not measure them, the mean over a group's query heads. Parameters and
    errors are those of `ranking`.
    """
    heads = ranking(profile, rank_by, treatment)
    found = profile.rankings[rank_by]
    measured = found.group_table(stand_in(found, treatment) or treatment)
    if measured is not None:
        return np.array(measured, dtype=np.float64)
    geometry = profile.geometry
    return heads.reshape(geometry.layers, geometry.kv_heads, geometry.group_size).mean(2)


def unit_ranking(profile: HeadProfile, rank_by: str, treatment: TreatmentName, granularity: Granularity) -> Table:
    """`ranking`, or with granularity ``kv_group`` `group_ranking` with a group's worth at each of its query heads.

    Returns
    -------
    ``(layers, query heads)``.
    """
    if granularity == "query_head" or profile.geometry.group_size == 1:
        return ranking(profile, rank_by, treatment)
    return np.repeat(group_ranking(profile, rank_by, treatment), profile.geometry.group_size, axis=1)
