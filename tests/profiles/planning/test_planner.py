"""Which heads a plan treats: exactly the budget, in the order asked for, never a protected one."""

from typing import Any

import numpy as np
import pytest
from documents import brief, profile_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from planned import plan_for

from profiles.errors import BudgetTooLarge, LayoutRefused, MeansMissing, ProtectedHeadTreated, UserError, WrongValue
from profiles.geometry import stage_layers
from profiles.head_profile import HeadProfile
from profiles.planning.layout import layer_layouts
from profiles.planning.planner import protected_heads
from profiles.planning.rankings import group_ranking, unit_ranking
from profiles.planning.units import unit_size, units
from profiles.ranking import Ranking
from profiles.store import load_plan, save


@st.composite
def scores(draw: st.DrawFn, *, ties: bool = True) -> np.ndarray:
    """Scores of a model of 1 to 6 layers with up to 8 heads; from few values, so that there are ties, or distinct."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 8)))
    if ties:
        return draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
    return np.array(draw(st.permutations(range(shape[0] * shape[1]))), dtype=float).reshape(shape) / 64


@st.composite
def requests(draw: st.DrawFn) -> tuple[HeadProfile, dict[str, Any]]:
    """A profile, and options that may or may not be possible for it."""
    table = draw(scores())
    kv_heads = draw(st.sampled_from([n for n in range(1, table.shape[1] + 1) if table.shape[1] % n == 0]))
    profile = profile_of(table, kv_heads)
    granularity = draw(st.sampled_from(["query_head", "kv_group"]))
    size = unit_size(profile.geometry, granularity)
    stage = draw(st.sampled_from(["early", "middle", "late", "all"]))
    most = len(stage_layers(stage, table.shape[0])) * table.shape[1] // size
    return profile, {
        "remove": size * draw(st.integers(0, most)),
        "text_only": size * draw(st.integers(0, 1)),
        "stage": stage,
        "select": draw(st.sampled_from(["bottom", "top", "random"])),
        "protect_top": draw(st.sampled_from([0.0, 10.0, 33.3])),
        "seed": draw(st.integers(0, 5)),
        "granularity": granularity,
        "compensation": draw(st.sampled_from(["none", "mean"])),
    }


def check_refusal(refusal: UserError, profile: HeadProfile, options: dict[str, Any]) -> None:
    """A plan is only refused for a reason."""
    geometry, percent = profile.geometry, options["protect_top"]
    if isinstance(refusal, ProtectedHeadTreated):
        assert options["select"] == "top"
        assert percent > 0
        return
    if isinstance(refusal, LayoutRefused):
        mixed = options["text_only"] and geometry.group_size > 1 and options["granularity"] == "query_head"
        assert mixed or options["remove"] == geometry.heads
        return
    worth = unit_ranking(profile, "score", "removed", options["granularity"])
    protected = protected_heads(worth, percent) if options["select"] != "top" else set()
    free = 0
    for unit in units(geometry, profile.scores(), options["granularity"]):
        if unit.layer in stage_layers(options["stage"], geometry.layers):
            free += len(unit.heads) * protected.isdisjoint((unit.layer, head) for head in unit.heads)
    assert options["remove"] + options["text_only"] > free


@given(request=requests())
@brief
def test_a_plan_keeps_its_promises(
    request: tuple[HeadProfile, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    profile, options = request
    try:
        plan = plan_for(profile, **options)
    except (BudgetTooLarge, ProtectedHeadTreated, LayoutRefused) as refusal:
        check_refusal(refusal, profile, options)
        return
    removed, text_only = plan.heads("removed"), plan.heads("text_only")
    assert len(removed) == options["remove"]
    assert len(text_only) == options["text_only"]
    assert {layer for layer, _ in removed + text_only} <= set(stage_layers(options["stage"], profile.geometry.layers))
    assert not set(plan.selection.protected) & set(removed + text_only)
    assert plan.profile_digest == profile.digest
    assert (len(plan.heads("full")) == plan.geometry.heads) == (not removed and not text_only)
    assert layer_layouts(plan)
    assert plan_for(profile, **options) == plan
    save(plan, tmp_path_factory.getbasetemp() / "plan.json")
    assert load_plan(tmp_path_factory.getbasetemp() / "plan.json") == plan
    if options["compensation"] == "mean":
        assert profile.mean_output is not None
        means = [profile.mean_output[head] for head in removed]
        np.testing.assert_array_equal(plan.compensation.means, np.array(means).reshape(-1, 3))


@given(table=scores(ties=False), data=st.data())
@brief
def test_permuting_scores_permutes_the_plan(table: np.ndarray, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(table.size))))
    permuted = table.reshape(-1)[order].reshape(table.shape)
    options = {
        "remove": data.draw(st.integers(0, table.size // 2)),
        "text_only": data.draw(st.integers(0, table.size // 4)),
        "select": data.draw(st.sampled_from(["bottom", "top"])),
    }
    plan = plan_for(profile_of(table), **options)
    treatments = np.array(plan.treatments).reshape(-1)
    assert plan_for(profile_of(permuted), **options).treatments == treatments[order].reshape(table.shape).tolist()


@given(table=scores(), data=st.data())
@brief
def test_bottom_and_top_take_the_ends(table: np.ndarray, data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, table.size - 1))
    bottom = plan_for(profile_of(table), remove=budget).heads("removed")
    top = plan_for(profile_of(table), remove=budget, select="top").heads("removed")
    assert sorted(table[head] for head in bottom) == sorted(table.reshape(-1))[:budget]
    assert sorted(table[head] for head in top) == sorted(table.reshape(-1))[table.size - budget :]


def test_ties_go_by_layer_and_head() -> None:
    for select in ("bottom", "top"):
        plan = plan_for(profile_of(np.zeros((3, 4))), remove=5, select=select)
        assert plan.heads("removed") == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]


def test_text_only_heads_come_next_in_the_order() -> None:
    table = np.array([[3.0, 0.0, 5.0], [1.0, 4.0, 2.0]])
    plan = plan_for(profile_of(table), remove=2, text_only=3)
    assert plan.treatments == [["text_only", "removed", "full"], ["removed", "text_only", "text_only"]]


def test_random_is_seeded_and_nested() -> None:
    profile = profile_of(np.zeros((6, 8)))

    def chosen(seed: int, budget: int, **options: Any) -> set[tuple[int, int]]:
        plan = plan_for(profile, remove=budget, select="random", seed=seed, **options)
        assert plan.selection.seed == seed
        return set(plan.heads("removed"))

    assert chosen(1, 8) == chosen(1, 8)
    assert len({frozenset(chosen(seed, 8)) for seed in range(20)}) == 20
    assert chosen(1, 4) < chosen(1, 8)
    late = {head for head in chosen(1, 30) if head[0] >= 4}
    assert chosen(1, len(late), stage="late") == late
    # Pinned: the same seed has to mean the same heads in every release.
    assert sorted(chosen(0, 3)) == [(0, 6), (2, 4), (3, 2)]
    counts = np.zeros((6, 8))
    for seed in range(150):
        counts[tuple(zip(*chosen(seed, 6), strict=True))] += 1
    assert counts.min() > 5  # 19 expected, standard deviation 4
    assert counts.max() < 38


def test_the_seed_says_nothing_unless_random() -> None:
    profile = profile_of(np.arange(12.0).reshape(3, 4))
    assert plan_for(profile, remove=3, seed=1) == plan_for(profile, remove=3, seed=2)
    assert plan_for(profile, remove=3, seed=1).selection.seed is None


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (0.1, 1), (8.3, 1), (9, 2), (25, 3), (50, 6), (100, 12)])
def test_protected_are_the_highest_of_the_whole_model(percent: float, count: int) -> None:
    profile = profile_of(np.arange(12.0).reshape(3, 4))
    assert protected_heads(profile.scores(), percent) == {(i // 4, i % 4) for i in range(12 - count, 12)}


def test_a_unit_with_a_protected_head_is_passed_over() -> None:
    profile = profile_of(np.array([[0.0, 9.0, 1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]), kv_heads=2)
    plan = plan_for(profile, remove=2, protect_top=10)  # in each layer the lowest of both groups, and the others
    assert plan.selection.protected == [(0, 1)]
    assert plan.heads("removed") == [(0, 0), (0, 2)]


def test_whole_groups_are_protected_and_chosen_by_what_is_measured_of_groups() -> None:
    table = np.array([[0.0, 9.0, 1.0, 2.0], [3.0, 4.0, 5.0, 6.0]])
    profile = profile_of(table, kv_heads=2)
    by_mean = plan_for(profile, remove=2, protect_top=10, granularity="kv_group")
    assert by_mean.selection.protected == [(1, 2), (1, 3)]
    assert by_mean.heads("removed") == [(0, 2), (0, 3)]
    measured = Ranking(tables={"all": table.tolist()}, group_tables={"all": [[0.5, 3.0], [2.0, 1.0]]})
    profile = HeadProfile.model_validate({**dict(profile), "rankings": {**profile.rankings, "score": measured}})
    assert group_ranking(profile, "score").tolist() == [[0.5, 3.0], [2.0, 1.0]]
    by_group = plan_for(profile, remove=2, protect_top=10, granularity="kv_group")
    assert by_group.selection.protected == [(0, 2), (0, 3)]
    assert by_group.heads("removed") == [(0, 0), (0, 1)]
    with pytest.raises(ProtectedHeadTreated, match=r"include layer 0 group 1 \(heads 2-3\), which"):
        plan_for(profile, remove=2, protect_top=10, granularity="kv_group", select="top")
    by_head = plan_for(profile, remove=2, protect_top=10, granularity="query_head")
    assert by_head.heads("removed") == [(0, 0), (0, 2)]


@pytest.mark.parametrize(
    ("kv_heads", "options", "error", "part"),
    [
        (4, {"remove": 13}, BudgetTooLarge, "the model has 12"),
        (4, {"remove": 5, "stage": "late"}, BudgetTooLarge, "stage late has 4"),
        (4, {"remove": 3, "text_only": 2, "stage": "late"}, BudgetTooLarge, "5 heads"),
        (4, {"remove": 4, "stage": "late", "protect_top": 10}, BudgetTooLarge, "only 2 of the 4 in stage late"),
        (4, {"remove": 4, "stage": "late", "protect_top": 10, "select": "random"}, BudgetTooLarge, "at most 2"),
        (4, {"remove": 1, "select": "top", "protect_top": 10}, ProtectedHeadTreated, "--protect-top 0"),
        (4, {"remove": 12}, LayoutRefused, "removes every head"),
        (4, {"remove": -1}, WrongValue, "0 or more"),
        (4, {"text_only": -1}, WrongValue, "--text-only is -1"),
        (4, {"remove": 1, "protect_top": 101}, WrongValue, "0 to 100"),
        (2, {"remove": 3, "granularity": "kv_group"}, WrongValue, "give --remove 2 or --remove 4"),
        (2, {"text_only": 1, "granularity": "kv_group"}, WrongValue, "give --text-only 0 or --text-only 2"),
        (1, {"remove": 6, "granularity": "kv_group"}, WrongValue, "a multiple of 4"),
        (2, {"remove": 1}, WrongValue, "a multiple of 2"),
        (2, {"text_only": 2}, LayoutRefused, "--granularity kv_group"),
    ],
)
def test_what_cannot_be_planned(kv_heads: int, options: dict[str, Any], error: type[UserError], part: str) -> None:
    with pytest.raises(error) as caught:
        plan_for(profile_of(np.arange(12.0).reshape(3, 4), kv_heads), **options)
    assert part in str(caught.value)


def test_top_may_stand_beside_a_protection_that_it_does_not_touch() -> None:
    plan = plan_for(
        profile_of(np.arange(12.0)[::-1].reshape(3, 4)), remove=2, stage="late", select="top", protect_top=10
    )
    assert plan.heads("removed") == [(2, 0), (2, 1)]
    assert plan.selection.protected == [(0, 0), (0, 1)]


def test_mean_compensation_needs_means() -> None:
    profile = profile_of(np.zeros((3, 4)), means=False)
    with pytest.raises(MeansMissing, match="--compensation none"):
        plan_for(profile, remove=1, compensation="mean")
    empty = plan_for(profile_of(np.zeros((3, 4))), compensation="mean")
    assert empty.compensation.means is not None
    assert empty.compensation.means.shape == (0, 3)
