"""What each layer keeps under a plan, and which plans no layout can hold."""

from collections.abc import Sequence

import pytest
from documents import MODEL, brief, plans
from hypothesis import given

from profiles.errors import LayoutRefused
from profiles.geometry import ModelGeometry
from profiles.planning.layout import LayerLayout, TreatedHeads, layer_layouts
from profiles.pruning_plan import PruningPlan

GQA = ModelGeometry(layers=3, query_heads=6, kv_heads=2, head_size=4, hidden_size=25, image_tokens=7)
MHA = GQA.model_copy(update={"kv_heads": 6})


Heads = Sequence[tuple[int, int]]
Ints = tuple[int, ...]


def manual(geometry: ModelGeometry, removed: Heads, text_only: Heads = ()) -> PruningPlan:
    return PruningPlan.manual(MODEL, geometry, removed=removed, text_only=text_only)


def layout_of(full: Ints, text_only: Ints, kv_full: Ints, kv_text: Ints) -> LayerLayout:
    return LayerLayout.of(full=TreatedHeads(full, kv_full), text_only=TreatedHeads(text_only, kv_text))


def test_multi_head_attention_keeps_any_heads() -> None:
    plan = manual(MHA, [(0, 1), (1, 0), (1, 2), (1, 5)], [(0, 3), (0, 0)])
    assert layer_layouts(plan) == (
        layout_of(full=(2, 4, 5), text_only=(0, 3), kv_full=(2, 4, 5), kv_text=(0, 3)),
        layout_of(full=(1, 3, 4), text_only=(), kv_full=(1, 3, 4), kv_text=()),
        layout_of(full=tuple(range(6)), text_only=(), kv_full=tuple(range(6)), kv_text=()),
    )


def test_grouped_query_attention_frees_kv_by_whole_groups() -> None:
    plan = manual(GQA, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 5)], [(2, 3), (2, 4), (2, 5)])
    assert layer_layouts(plan) == (
        layout_of(full=(3, 4, 5), text_only=(), kv_full=(1,), kv_text=()),
        layout_of(full=(1, 2, 3, 4), text_only=(), kv_full=(0, 1), kv_text=()),
        layout_of(full=(0, 1, 2), text_only=(3, 4, 5), kv_full=(0,), kv_text=(1,)),
    )


def test_a_layer_may_lose_every_head() -> None:
    plan = manual(GQA, [(1, head) for head in range(6)])
    assert layer_layouts(plan)[1] == LayerLayout.of()


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (manual(GQA, [(1, 0)]), r"layer 1: keeps 2 of KV head 0, 3 of KV head 1 \(full query heads\)"),
        (manual(GQA, [(1, 0), (1, 1), (1, 3)]), "layer 1: keeps 1 of KV head 0, 2 of KV head 1"),
        (manual(GQA, [(2, 0)], [(2, 1), (2, 2), (2, 3), (2, 4), (2, 5)]), r"layer 2: .* \(text_only query heads\)"),
        (manual(GQA, [], [(0, 0), (0, 3)]), "layer 0: KV head 0 has full and text-only query heads"),
        (manual(GQA, [(layer, head) for layer in range(3) for head in range(6)]), "the plan removes every head"),
    ],
)
def test_refusals_name_the_layer_and_the_reason(plan: PruningPlan, reason: str) -> None:
    with pytest.raises(LayoutRefused, match=reason):
        layer_layouts(plan)


@given(plan=plans())
@brief
def test_a_layout_holds_each_kept_head_once(plan: PruningPlan) -> None:
    try:
        layouts = layer_layouts(plan)
    except LayoutRefused:
        return
    size = plan.geometry.group_size
    for row, layout in zip(plan.treatments, layouts, strict=True):
        for name, heads in layout.kept.items():
            assert heads.queries == tuple(head for head, given in enumerate(row) if given == name)
            run = len(heads.queries) // max(1, len(heads.kv))
            assert [head // size for head in heads.queries] == [kv_head for kv_head in heads.kv for _ in range(run)]
        assert layout.full == layout.kept["full"]
        assert sorted(layout.queries) == [head for head, given in enumerate(row) if given != "removed"]
        assert len(set(layout.kv)) == len(layout.kv)
