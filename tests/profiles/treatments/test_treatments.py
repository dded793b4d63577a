"""Every registered treatment, and one thrown in: plans, layouts, savings and summaries follow from the definition."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import MODEL
from pydantic import ValidationError
from throwaway_treatments import THIN, registered

from profiles.geometry import ModelGeometry
from profiles.names import ABLATED, TREATED
from profiles.planning.layout import TreatedHeads, layer_layouts
from profiles.planning.savings import (
    kv_bytes_of_request,
    kv_bytes_per_image_token,
    kv_bytes_per_token,
    weight_bytes_saved,
)
from profiles.planning.summary import heads_by_stage, summarise
from profiles.pruning_plan import PruningPlan
from profiles.selection import Selection
from profiles.store import load_plan, save
from profiles.treatments import ALL_BLOCKS, EVICT, NO_BLOCKS, TREATMENTS, ImageBlocks, Phase, Treatment, budgeted

GEOMETRY = ModelGeometry(layers=3, query_heads=6, kv_heads=2, head_size=4, hidden_size=25, image_tokens=7)
GROUP = [(1, head) for head in range(3)]
WIDTH = 2 * 4 * 2
"""Bytes of keys and values of one KV head and token, at two bytes each."""

CASES = [*TREATMENTS.values(), THIN]


@pytest.fixture(autouse=True)
def throwaway() -> Iterator[None]:
    with registered(THIN):
        yield


def one_group(treatment: Treatment) -> PruningPlan:
    """The plan that treats one of six KV groups."""
    return PruningPlan.manual(MODEL, GEOMETRY, granularity="kv_group", **{treatment.name: GROUP})


def held(treatment: Treatment, blocks: list[bool], phase: Phase) -> int:
    """Blocks that a head keeps, one by one; `blocks` says which hold nothing but the image."""
    kept, number = 0, 0
    seen = treatment.seen_in_prompt if phase == "prompt" else treatment.seen_in_reply
    for is_image in blocks:
        visible = not is_image or (seen.stride is not None and number % seen.stride == 0)
        kept += treatment.computed and visible
        number += is_image
    return kept


@pytest.mark.parametrize("treatment", CASES, ids=lambda one: one.name)
def test_a_plan_of_it_is_written_and_read(treatment: Treatment, tmp_path: Path) -> None:
    plan = one_group(treatment)
    save(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan
    assert plan.heads(treatment.name)[-3:] == (GROUP if not treatment.is_full else [(2, 3), (2, 4), (2, 5)])
    assert plan.uncomputed == ([] if treatment.computed else GROUP)


@pytest.mark.parametrize("treatment", CASES, ids=lambda one: one.name)
def test_a_layout_keeps_its_heads_if_they_are_computed(treatment: Treatment) -> None:
    layout = layer_layouts(one_group(treatment))[1]
    assert list(layout.kept) == [one.name for one in TREATMENTS.values() if one.computed]
    kept = {name: heads for name, heads in layout.kept.items() if heads.queries}
    rest = TreatedHeads((3, 4, 5), (1,))
    if treatment.is_full:
        assert kept == {"full": TreatedHeads(tuple(range(6)), (0, 1))}
    elif treatment.computed:
        assert kept == {"full": rest, treatment.name: TreatedHeads((0, 1, 2), (0,))}
    else:
        assert kept == {"full": rest}


@pytest.mark.parametrize("phase", ["prompt", "reply"])
@pytest.mark.parametrize("treatment", CASES, ids=lambda one: one.name)
def test_savings_are_what_the_blocks_say(treatment: Treatment, phase: Phase) -> None:
    plan = one_group(treatment)
    computed = 6 if treatment.computed else 5
    assert kv_bytes_per_token(plan, 2) == computed * WIDTH
    seen = treatment.kept(phase)
    share = 0 if seen.stride is None else 1 / seen.stride
    assert kv_bytes_per_image_token(plan, 2, phase) == pytest.approx((5 + share) * WIDTH, abs=1)
    assert weight_bytes_saved(plan, 2) == (0 if treatment.computed else (3 + 1) * 2 * 4 * 25 * 2)
    for text, image, size, start in ((40, 70, 8, 3), (5, 21, 4, 5), (9, 3, 4, 2), (10, 0, 4, 0)):
        image_positions = [start <= position < start + image for position in range(text + image)]
        cut = [image_positions[first : first + size] for first in range(0, text + image, size)]
        blocks = [all(block) and len(block) == size for block in cut]
        tokens = (5 * len(blocks) + held(treatment, blocks, phase)) * size
        assert kv_bytes_of_request(plan, text, image, 2, size, start, phase) == tokens * WIDTH


def test_a_summary_counts_every_treatment() -> None:
    for treatment in CASES:
        counts = heads_by_stage(one_group(treatment))
        assert list(counts["middle"]) == list(TREATMENTS)
        assert counts["middle"][treatment.name] == (6 if treatment.is_full else 3)
    evicted = summarise(one_group(EVICT), "float16", 2, block_size=1)
    assert evicted["kv_bytes_per_image_token"] == {"baseline": 6 * WIDTH, "pruned": 5 * WIDTH}


def test_what_is_no_treatment_is_refused() -> None:
    plan = one_group(THIN).model_dump()
    plan["treatments"][0][0] = "gone"
    with pytest.raises(ValidationError, match=r"'gone'; expected 'full', .*'text_only', 'removed' or 'every:3'"):
        PruningPlan.model_validate(plan)
    with pytest.raises(TypeError, match="gone"):
        PruningPlan.manual(MODEL, GEOMETRY, gone=GROUP)


def test_every_budget_has_a_count() -> None:
    for one in budgeted():
        assert one.budget in Selection.model_fields
        assert one.name in TREATED
        assert one.name in ABLATED


def test_definitions_are_consistent() -> None:
    assert [one.name for one in TREATMENTS.values() if one.is_full] == ["full"]
    assert next(iter(TREATMENTS)) == "full"
    assert len({(one.colour, one.hatch) for one in TREATMENTS.values()}) == len(TREATMENTS)
    for name, one in TREATMENTS.items():
        assert one.name == name
        assert one.seen_in_prompt.includes(one.seen_in_reply)
    with pytest.raises(ValueError, match="replies cannot see"):
        Treatment(
            name="x", label="x", phrase="x", description="x", colour="k", hatch="", seen_in_prompt=NO_BLOCKS
        )  # fmt: skip
    with pytest.raises(ValueError, match="stride is 0"):
        ImageBlocks(0)


@pytest.mark.parametrize("blocks", range(12))
def test_image_blocks_are_those_of_the_stride(blocks: int) -> None:
    for stride in range(1, 6):
        chosen = set(range(0, blocks, stride))
        assert ImageBlocks(stride).count(blocks) == len(chosen)
        assert all(
            not ImageBlocks(stride).includes(ImageBlocks(other)) or set(range(0, blocks, other)) <= chosen
            for other in range(1, 9)
        )
    assert NO_BLOCKS.count(blocks) == 0
    assert ALL_BLOCKS.count(blocks) == blocks
    assert not NO_BLOCKS.includes(ALL_BLOCKS)
