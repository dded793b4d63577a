"""Which ranking orders the heads of a plan."""

import numpy as np
import pytest
from documents import example_profile, profile_of
from planned import plan_for

from profiles.errors import RankingMissing
from profiles.head_profile import HeadProfile
from profiles.names import KNOWN_RANKINGS
from profiles.ranking import Ranking


def with_effects(profile: HeadProfile, removed: np.ndarray, text_only: np.ndarray) -> HeadProfile:
    effect = Ranking(tables={"removed": removed.tolist(), "text_only": text_only.tolist()})
    return profile.model_copy(update={"rankings": profile.rankings | {"effect": effect}})


def test_each_treatment_goes_by_its_own_effect() -> None:
    rising = np.arange(12.0).reshape(3, 4)
    profile = with_effects(profile_of(rising[::-1].copy()), removed=rising, text_only=rising[:, ::-1].copy())
    plan = plan_for(profile, remove=3, text_only=2, rank_by="effect", protect_top=10)
    assert plan.heads("removed") == [(0, 0), (0, 1), (0, 2)]
    assert plan.heads("text_only") == [(0, 3), (1, 3)]  # (0, 3) is worth least, and the others of layer 0 are gone
    assert plan.selection.protected == [(2, 2), (2, 3)]
    assert plan.selection.rank_by == "effect"
    top = plan_for(profile, remove=1, text_only=1, rank_by="effect", select="top")
    assert (top.heads("removed"), top.heads("text_only")) == ([(2, 3)], [(2, 0)])


@pytest.mark.parametrize("rank_by", [*KNOWN_RANKINGS, "a_new_one"])
def test_every_ranking_orders_by_its_table(rank_by: str) -> None:
    rng = np.random.default_rng(3)
    tables = {name: rng.random((3, 4)) for name in (*KNOWN_RANKINGS, "a_new_one")}
    profile = example_profile().model_copy(update={"rankings": {name: Ranking.of(one) for name, one in tables.items()}})
    groups = tables[rank_by].reshape(3, 2, 2).mean(2)
    least = np.unravel_index(groups.argmin(), groups.shape)
    plan = plan_for(profile, remove=2, rank_by=rank_by, granularity="kv_group")
    assert plan.heads("removed") == [(least[0], 2 * least[1]), (least[0], 2 * least[1] + 1)]


@pytest.mark.parametrize(
    ("rank_by", "cure"),
    [
        ("effect", "--no-effects"),
        ("gradient", "--no-effects"),
        ("box_weight", "boxes"),
        ("sparsemm", "profile import"),
        ("duo_attention", "profile import"),
        ("nonsense", "no ranking 'nonsense'; expected score, image_weight, concentration; name one of these$"),
    ],
)
def test_a_ranking_that_was_not_measured_is_refused(rank_by: str, cure: str) -> None:
    profile = profile_of(np.arange(12.0).reshape(3, 4))
    with pytest.raises(RankingMissing, match=cure):
        plan_for(profile, remove=1, rank_by=rank_by)
