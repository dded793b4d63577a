"""What is written can be read, and the same content is always the same bytes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import FORMAT_PAGE, PROFILE_V1, brief, example_plan, example_profile, format_examples, plans, profiles
from hypothesis import given
from hypothesis import strategies as st

from profiles import canonical
from profiles.head_profile import (
    DatasetRef,
    HeadProfile,
    ScoreFormula,
)
from profiles.measurement import Measurement
from profiles.pruning_plan import Compensation, PruningPlan
from profiles.ranking import Ranking
from profiles.selection import Selection
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
    assert example_profile().digest == "sha256:2af14357f7c6f7678a2c61b3710b940e59ccb3a5a806207fdff0d977f2c74241"
    older = example_plan().model_copy(update={"block_size": None, "chat_template": None, "image_backend": None})
    assert older.digest == "sha256:d19b30f6757ea8394419cb444c456cbe4221ffaa8ede355bc51f35e077e32e69"
    without_backend = example_plan().model_copy(update={"image_backend": None})
    assert without_backend.digest == "sha256:8b10f3650287ca8660d63999c41fc873b8e3589c533f869f8489825fff6d70d1"
    assert example_plan().digest == "sha256:15166cc9e61b74053a9ac8ce0630748433570ef41ca857ce28f26fbdc77994ae"


def test_a_profile_of_version_1_is_read_as_the_same_of_version_2(tmp_path: Path) -> None:
    old = load_profile(PROFILE_V1)
    assert old == example_profile()
    assert old.version == 2
    # Plans name the file that they were made from, as long as it says the same.
    assert old.digest == f"sha256:{hashlib.sha256(PROFILE_V1.read_bytes()).hexdigest()}"
    assert old.digest == "sha256:7846762d6c4f65bf1235495b117c6da1f08081d30c7c4639d179f103e3eaab3a"
    assert old.model_copy(update={"seed": 1}).digest == example_profile().model_copy(update={"seed": 1}).digest
    save(old, tmp_path / "new.json")
    assert (tmp_path / "new.json").read_bytes() == canonical.to_bytes(example_profile())
    assert load_profile(tmp_path / "new.json").digest == example_profile().digest != old.digest


def test_version_1_without_what_it_may_lack(tmp_path: Path) -> None:
    data = json.loads(PROFILE_V1.read_bytes())
    data["heads"]["box_weight"] = data["effects"]["gradient"] = data["effects"]["block_size"] = None
    data["imported"] = []
    path = tmp_path / "old.json"
    path.write_text(json.dumps(data))
    rankings = load_profile(path).rankings
    assert set(rankings) == {"score", "image_weight", "concentration", "effect"}
    assert rankings["effect"].block_size is None
    path.write_text(json.dumps(data | {"effects": None}))
    assert set(load_profile(path).rankings) == {"score", "image_weight", "concentration"}


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
    assert canonical.to_bytes(Ranking.of([[-0.0] * 4] * 3)) == canonical.to_bytes(Ranking.of([[0.0] * 4] * 3))
    means = Compensation(method="mean", means=np.array([[-0.0]], dtype=np.float32))
    assert means == Compensation(method="mean", means=np.array([[0.0]], dtype=np.float32))


def test_format_page_lists_every_field() -> None:
    page = FORMAT_PAGE.read_text(encoding="utf-8")
    sections = {
        "## Head profile": HeadProfile,
        "### `dataset`": DatasetRef,
        "### `formula`": ScoreFormula,
        "### `rankings`": Ranking,
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
        assert sorted(listed) == sorted(model.model_fields), title


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
