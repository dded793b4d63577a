"""How the heads of a pruning plan were chosen.

Does not know what is done with them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from profiles.names import SelectionMethod, StageOrAll, TreatmentName
from profiles.ranking import RankingName
from profiles.strict import Strict
from profiles.treatments import TREATMENTS, Treatment

# JSON has no tuples: a list of two is taken for one.
Head = Annotated[tuple[NonNegativeInt, NonNegativeInt], Field(strict=False)]


class Selection(Strict):
    """How the heads were chosen.

    Attributes
    ----------
    method
        ``bottom``: lowest ranked first (by score, the least visual heads); ``top``: highest first; ``random``: by
        seed; ``manual``: by hand, in which case nothing is claimed about the numbers below.
    stage
        Layers that heads were chosen from.
    remove, text_only
        Number of query heads removed, and made text-only.
    evict, evict_2, evict_4, evict_8, thinned_2, thinned_4, thinned_8
        The same for the other treatments (`profiles.treatments`); None for no head.
    exit_layer
        First layer, 0-based, of those in which every head that is not removed was made text-only; None for no layer.
    protect_top
        Percentage of the model's heads, the highest ranked, that are never treated; `protected` lists them.
    seed
        For ``random``; else None.
    rank_by
        Ranking of the profile that orders the heads (`profiles.planning.rankings`).
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset(
        {"evict", "evict_2", "evict_4", "evict_8", "thinned_2", "thinned_4", "thinned_8", "exit_layer"}
    )

    method: SelectionMethod
    stage: StageOrAll = "all"
    remove: NonNegativeInt = 0
    text_only: NonNegativeInt = 0
    evict: PositiveInt | None = None
    evict_2: PositiveInt | None = None
    evict_4: PositiveInt | None = None
    evict_8: PositiveInt | None = None
    thinned_2: PositiveInt | None = None
    thinned_4: PositiveInt | None = None
    thinned_8: PositiveInt | None = None
    exit_layer: NonNegativeInt | None = None
    protect_top: Annotated[float, Field(ge=0, le=100)] = 0.0
    protected: list[Head] = Field(default_factory=list)
    seed: int | None = None
    rank_by: RankingName = "score"

    def count(self, treatment: Treatment) -> int | None:
        """Number of heads of a treatment; None for one that has no budget."""
        return None if treatment.budget is None else getattr(self, treatment.budget) or 0


def counts_by_budget(counts: Mapping[TreatmentName, int]) -> dict[str, Any]:
    """Fields of a `Selection` for numbers of heads by treatment; treatments without a budget are left out."""
    fields = {TREATMENTS[name].budget or "": count for name, count in counts.items() if TREATMENTS[name].budget}
    return {name: count for name, count in fields.items() if count or name not in Selection.OPTIONAL}
