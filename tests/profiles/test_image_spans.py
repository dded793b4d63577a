"""The rule of image spans in a plan: written where heads depend on it, in the digest, and not asked of older plans."""

import json
from pathlib import Path

from documents import example_plan

from profiles.image_spans import OLD_RULE, RULE, SpanRule
from profiles.pruning_plan import PruningPlan
from profiles.store import load_plan, save


def manual(**heads: list[tuple[int, int]]) -> PruningPlan:
    example = example_plan()
    return PruningPlan.manual(example.model, example.geometry, **heads)


def test_a_plan_says_the_rule_where_heads_depend_on_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for treatment in ("text_only", "evict", "thinned:2"):
        plan = manual(**{treatment: [(1, 0), (1, 1)]})
        save(plan, path)
        assert json.loads(path.read_text())["image_spans"] == {"bridge": 8} == RULE.model_dump()
        assert load_plan(path).span_rule == RULE
    save(manual(removed=[(1, 0)]), path)
    assert "image_spans" not in json.loads(path.read_text())


def test_another_rule_is_another_plan() -> None:
    plan = manual(text_only=[(1, 0), (1, 1)])
    old = plan.model_copy(update={"image_spans": None})
    other = plan.model_copy(update={"image_spans": SpanRule(bridge=3)})
    assert len({plan.digest, old.digest, other.digest}) == 3
    assert old.span_rule == OLD_RULE


def test_the_format_names_the_constant() -> None:
    page = (Path(__file__).parents[2] / "profiles" / "FORMAT.md").read_text()
    assert f"A writer MUST write {RULE.bridge}." in page


def test_what_is_neither_image_nor_video_has_no_span() -> None:
    ranges = [(0, 4), (6, 8)]
    assert RULE.spans([("audio", ranges)]) == ()
    assert RULE.spans([("video", ranges)]) == ((0, 4), (6, 8))
    assert RULE.spans([("image", ranges)]) == ((0, 8),)
    assert OLD_RULE.spans([("image", ranges)]) == ((0, 4), (6, 8))
    far = [(0, 4), (4 + RULE.bridge, 20), (21 + RULE.bridge, 40)]
    assert RULE.spans([("image", far)]) == ((0, 20), (21 + RULE.bridge, 40))
