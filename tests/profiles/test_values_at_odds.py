"""Values that the format has no place for, or that contradict each other: each with its own error and its full path."""

import json
from pathlib import Path

import numpy as np
import pytest
from defects import OLD, Place, changed, data_of, put, refused
from documents import example_profile, to_base64
from pydantic import ValidationError

from profiles.errors import (
    MissingField,
    NotFinite,
    ProtectedHeadTreated,
    SplitGroup,
    UnknownField,
    UserError,
    WrongShape,
    WrongValue,
)
from profiles.pruning_plan import Compensation
from profiles.store import load_profile

NAN_AT_6 = to_base64(*[0] * 6, np.nan, *[0] * 5)
RANKINGS: Place = ("rankings",)
SCORE: Place = (*RANKINGS, "score", "tables", "all")
EFFECT: Place = (*RANKINGS, "effect")
RANKING = example_profile().rankings["gradient"].model_dump()
EFFECT_OF_REMOVAL = RANKING | {"tables": {"removed": RANKING["tables"]["all"]}}
IMPORTED = OLD.imported[0].model_dump()


def test_a_path_goes_down_to_the_entry(tmp_path: Path) -> None:
    text = changed(data_of("profile"), ("rankings", "score", "tables", "all", 2, 3), put("high"))
    expected = "document.json: rankings.score.tables.all[2][3] is 'high'; expected number"
    assert expected in str(refused("profile", text, tmp_path))
    text = changed(data_of("profile of version 1"), ("heads", "score", 2, 3), put("high"))
    assert "document.json: heads.score[2][3] is 'high'; expected number" in str(refused("profile", text, tmp_path))


@pytest.mark.parametrize(
    ("kind", "place", "value", "error", "part"),
    [
        ("profile", ("geometry", "kv_heads"), 3, WrongValue, "geometry.kv_heads"),
        ("profile", ("geometry", "layers"), 10**12, WrongShape, "rankings.box_weight.tables.all has 3 rows"),
        ("profile", (*SCORE, 0, 0), -0.5, WrongValue, "rankings.score.tables.all[0][0] is -0.5; expected at least 0"),
        (
            "profile",
            (*RANKINGS, "image_weight", "tables", "all", 1, 2),
            1.5,
            WrongValue,
            "all[1][2] is 1.5",
        ),
        ("profile", (*EFFECT, "tables", "removed", 2, 3), -1, WrongValue, "rankings.effect.tables.removed[2][3]"),
        ("profile", (*EFFECT, "tables", "evicted"), [], UnknownField, "rankings.effect.tables['evicted']"),
        ("profile", (*EFFECT, "tables", "all"), [], WrongValue, "rankings.effect.tables.removed is given beside all"),
        ("profile", (*EFFECT, "tables"), {}, MissingField, "rankings.effect.tables.all"),
        ("profile", (*EFFECT, "group_tables"), {"removed": []}, WrongValue, "rankings.effect.group_tables has removed"),
        (
            "profile",
            (*RANKINGS, "score", "group_tables"),
            {"all": 3 * [[0.5]]},
            WrongShape,
            "score.group_tables.all[0] has 1 entries",
        ),
        (
            "profile",
            (*RANKINGS, "score", "group_tables"),
            {"all": 3 * [[0, -1]]},
            WrongValue,
            "score.group_tables.all[0][1] is -1",
        ),
        ("profile", (*EFFECT, "block_size"), 0, WrongValue, "rankings.effect.block_size"),
        ("profile", (*EFFECT, "source"), "file", WrongValue, "rankings.effect.digest"),
        ("profile", (*RANKINGS, "sparsemm", "source"), None, WrongValue, "rankings.sparsemm.digest"),
        ("profile", (*RANKINGS, "score"), EFFECT_OF_REMOVAL, MissingField, "rankings.score.tables.all"),
        ("profile", (*RANKINGS, "Mine"), RANKING, WrongValue, "rankings.Mine is not a ranking's name"),
        ("profile", (*RANKINGS, "a-b"), RANKING, WrongValue, "rankings['a-b'] is not a ranking's name"),
        ("profile", (*RANKINGS, "a" * 65), RANKING, WrongValue, "is not a ranking's name"),
        ("profile of version 1", ("version",), 2, MissingField, "rankings is missing"),
        ("profile", ("version",), 1, MissingField, "heads is missing"),
        ("profile of version 1", ("geometry", "layers"), 10**12, WrongShape, "heads.image_weight has 3 rows"),
        ("profile of version 1", ("heads", "score", 0, 0), -0.5, WrongValue, "heads.score[0][0]"),
        ("profile of version 1", ("heads", "image_weight", 1, 2), 1.5, WrongValue, "heads.image_weight[1][2]"),
        ("profile of version 1", ("samples_with_box",), 0, WrongValue, "heads.box_weight"),
        ("profile of version 1", ("imported", 0, "name"), "mine", WrongValue, "imported[0].name"),
        ("profile of version 1", ("imported",), 2 * [IMPORTED], WrongValue, "imported[1].name is 'sparsemm' again"),
        (
            "plan",
            ("selection", "rank_by"),
            "By score",
            WrongValue,
            "selection.rank_by is 'By score'",
        ),
        ("profile", ("samples",), 0, WrongValue, "samples"),
        ("profile", ("samples_with_box",), 9, WrongValue, "samples_with_box"),
        ("profile", ("samples_with_box",), 0, WrongValue, "rankings.box_weight"),
        ("profile", ("settings", "dtype"), [], WrongValue, "settings.dtype"),
        ("profile", ("mean_output", "base64"), "AAA", WrongValue, "mean_output.base64"),
        ("profile", ("mean_output", "base64"), "AA==", WrongShape, "mean_output.base64"),
        ("profile", ("mean_output", "base64"), "é", WrongValue, "mean_output.base64"),
        ("profile", ("mean_output", "shape"), [4, 3, 1], WrongShape, "mean_output has shape [4, 3, 1]"),
        ("profile", ("mean_output", "shape"), [-3, -4, 1], WrongValue, "mean_output.shape[0]"),
        ("profile", ("mean_output", "shape"), [2**62, 2**62, 4], WrongShape, "mean_output.base64"),
        ("profile", ("mean_output", "base64"), NAN_AT_6, NotFinite, "mean_output[1][2][0]"),
        ("plan", ("compensation", "means", "base64"), to_base64(1, np.inf), NotFinite, "compensation.means[1][0]"),
        ("plan", ("compensation", "means", "shape"), [1, 2], WrongShape, "compensation.means"),
        ("plan", ("compensation", "means"), None, WrongValue, "compensation.means"),
        ("plan", ("compensation", "method"), "none", WrongValue, "compensation.means"),
        ("plan", ("treatments", 0, 2), "removed", ProtectedHeadTreated, "treatments[0][2]"),
        ("plan", ("treatments", 1, 2), "removed", SplitGroup, "treatments[1]"),
        ("plan", ("treatments", 1, 2), "gone", WrongValue, "treatments[1][2]"),
        ("plan", ("selection", "remove"), 4, WrongValue, "selection.remove"),
        ("plan", ("selection", "text_only"), 2, WrongValue, "selection.text_only"),
        ("plan", ("selection", "stage"), "early", WrongValue, "selection.stage"),
        ("plan", ("selection", "exit_layer"), 2, WrongValue, "selection.exit_layer"),
        ("plan", ("selection", "exit_layer"), 99, WrongValue, "selection.exit_layer"),
        ("plan", ("selection", "seed"), 1.5, WrongValue, "selection.seed"),
        ("plan", ("selection", "protect_top"), 101, WrongValue, "selection.protect_top"),
        ("plan", ("selection", "protected", 1), [3, 0], WrongValue, "selection.protected[1]"),
        ("plan", ("selection", "protected", 1), [0, 4], WrongValue, "selection.protected[1]"),
        ("plan", ("measured", 1, "correct"), 101, WrongValue, "measured[1].correct"),
        ("plan", ("measured", 1, "accuracy"), 0.87, WrongValue, "measured[1].accuracy"),
        ("plan", ("measured", 0, "low"), 0.95, WrongValue, "measured[0].low"),
        ("plan", ("measured", 0, "high"), 0.85, WrongValue, "measured[0].high"),
        ("plan", ("model", "name"), "", WrongValue, "model.name"),
        ("plan", ("versions", "torch"), 2, WrongValue, "versions.torch"),
    ],
)
def test_values_at_odds(
    kind: str, place: Place, value: object, error: type[UserError], part: str, tmp_path: Path
) -> None:
    found = refused(kind, changed(data_of(kind), place, put(value)), tmp_path)
    assert type(found) is error, found
    assert part in str(found)


def test_heads_that_share_no_kv_head_have_no_groups(tmp_path: Path) -> None:
    text = changed(
        data_of("profile"), (*EFFECT, "group_tables"), put(data_of("profile")["rankings"]["effect"]["tables"])
    )
    error = refused("profile", changed(json.loads(text), ("geometry", "kv_heads"), put(4)), tmp_path)
    assert type(error) is WrongValue
    assert "rankings.effect.group_tables is given for a model whose KV groups are single heads" in str(error)


def test_the_score_is_never_missing(tmp_path: Path) -> None:
    error = refused("profile", changed(data_of("profile"), (*RANKINGS, "score"), lambda c, k: c.pop(k)), tmp_path)
    assert type(error) is MissingField
    assert "rankings.score is missing" in str(error)


def test_any_other_name_and_number_is_a_ranking(tmp_path: Path) -> None:
    rows = [[-1e300, 0, 2, 1e300]] * 3
    path = tmp_path / "profile.json"
    path.write_text(changed(data_of("profile"), (*RANKINGS, "a_new_one"), put(RANKING | {"tables": {"all": rows}})))
    assert load_profile(path).rankings["a_new_one"].tables["all"] == rows


@pytest.mark.parametrize("place", [("commit",), ("settings", "dtype"), ("settings", "\ud800"), ("versions", "\ud800")])
def test_lone_surrogates_are_refused(place: Place, tmp_path: Path) -> None:
    text = changed(data_of("profile"), place, put("\ud800"))
    assert type(refused("profile", text, tmp_path)) is WrongValue


def test_python_arrays_are_checked_too() -> None:
    with pytest.raises(ValidationError, match="expected an array of floats"):
        Compensation(method="mean", means=np.zeros((1, 1), dtype=int))  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="is inf"):
        Compensation(method="mean", means=np.array([[1e300]]))  # type: ignore[arg-type]
