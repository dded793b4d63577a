"""What is written can be read, and the same content is always the same bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import FORMAT_PAGE, brief, example_plan, example_profile, format_examples, plans, profiles
from hypothesis import given
from hypothesis import strategies as st

from profiles import canonical
from profiles.head_profile import (
    DatasetRef,
    HeadProfile,
    HeadScores,
    ScoreFormula,
)
from profiles.pruning_plan import Compensation, Measurement, PruningPlan, Selection
from profiles.store import load_plan, load_profile, plan_from_dict, save

EXAMPLES = [(example_profile, load_profile, 0), (example_plan, load_plan, 1)]


@given(profile=profiles())
@brief
def test_a_saved_profile_loads_as_itself(profile: HeadProfile, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "profile.json"
    save(profile, path)
    loaded = load_profile(path)
    assert loaded == profile
    assert canonical.to_bytes(loaded) == path.read_bytes()
    assert loaded.digest == profile.digest
    if profile.mean_output is not None:
        assert loaded.mean_output is not None
        np.testing.assert_array_equal(loaded.mean_output, profile.mean_output)


@given(plan=plans())
@brief
def test_a_saved_plan_loads_as_itself(plan: PruningPlan, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "plan.json"
    save(plan, path)
    loaded = load_plan(path)
    assert loaded == plan
    assert canonical.to_bytes(loaded) == path.read_bytes()
    assert loaded.digest == plan.digest
    assert plan_from_dict(json.loads(path.read_bytes())) == plan


@given(plan=plans(), data=st.data())
@brief
def test_the_order_and_layout_of_a_file_say_nothing(
    plan: PruningPlan, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in data.draw(st.permutations(sorted(value)))}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    raw = canonical.to_bytes(plan)
    path = tmp_path_factory.getbasetemp() / "shuffled.json"
    path.write_text(json.dumps(shuffled(json.loads(raw)), indent=data.draw(st.sampled_from([None, 0, 7]))))
    assert canonical.to_bytes(load_plan(path)) == raw


@pytest.mark.parametrize(("make", "load", "index"), EXAMPLES, ids=["profile", "plan"])
def test_format_page_shows_the_exact_bytes(
    make: Callable[[], HeadProfile | PruningPlan],
    load: Callable[[Path], HeadProfile | PruningPlan],
    index: int,
    tmp_path: Path,
) -> None:
    path = tmp_path / "example.json"
    path.write_text(format_examples()[index], encoding="utf-8")
    assert load(path) == make()
    save(make(), path)
    assert path.read_text(encoding="utf-8") == format_examples()[index]


def test_digests_are_pinned() -> None:
    """A change here breaks every plan that names its profile: it needs a new format version."""
    assert example_profile().digest == "sha256:7846762d6c4f65bf1235495b117c6da1f08081d30c7c4639d179f103e3eaab3a"
    assert example_plan().digest == "sha256:83581678c19639dc2f6d7321df773a0e072f9d7945c0dbf68612c98988926ba8"


def test_plan_digest_leaves_out_measurements_and_nothing_else() -> None:
    plan = example_plan()
    assert plan.model_copy(update={"measured": []}).digest == plan.digest
    others = {
        "profile_digest": None,
        "versions": {},
        "commit": "abc",
        "compensation": Compensation(),
        "selection": plan.selection.model_copy(update={"seed": 1}),
    }
    digests = {plan.model_copy(update={field: value}).digest for field, value in others.items()}
    assert len({plan.digest, *digests}) == len(others) + 1


def test_negative_zero_is_zero() -> None:
    profile = example_profile()
    scores = profile.heads.model_copy(update={"score": [[-0.0] * 4] * 3})
    zeros = profile.heads.model_copy(update={"score": [[0.0] * 4] * 3})
    assert canonical.to_bytes(scores) == canonical.to_bytes(zeros)
    means = Compensation(method="mean", means=np.array([[-0.0]], dtype=np.float32))
    assert means == Compensation(method="mean", means=np.array([[0.0]], dtype=np.float32))


def test_format_page_lists_every_field() -> None:
    page = FORMAT_PAGE.read_text(encoding="utf-8")
    sections = {
        "## Head profile": HeadProfile,
        "### `dataset`": DatasetRef,
        "### `formula`": ScoreFormula,
        "### `heads`": HeadScores,
        "### `model`": type(example_plan().model),
        "### `geometry`": type(example_plan().geometry),
        "## Pruning plan": PruningPlan,
        "### `selection`": Selection,
        "### `compensation`": Compensation,
        "### `measured`": Measurement,
    }
    for title, model in sections.items():
        body = page.split(f"\n{title}\n")[1].split("\n#")[0]
        listed = [line.split("`")[1] for line in body.splitlines() if line.startswith("| `")]
        assert listed == list(model.model_fields), title


def test_equality_needs_the_same_kind() -> None:
    profile, plan = example_profile(), example_plan()
    assert profile != plan
    assert profile != 3
    assert profile == example_profile()
    with pytest.raises(TypeError, match="unhashable"):
        hash(profile)


def test_documents_are_frozen() -> None:
    profile = example_profile()
    with pytest.raises(ValueError, match="frozen"):
        profile.samples = 3  # type: ignore[misc]
    assert profile.mean_output is not None
    with pytest.raises(ValueError, match="read-only"):
        profile.mean_output[0, 0, 0] = 1
