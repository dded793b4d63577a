"""Every way a file can be malformed has its own named error, with the file and the field's full path."""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import PROFILE_V1, brief, example_plan, example_profile, to_base64
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from profiles import canonical
from profiles.errors import (
    DuplicateField,
    FileTooLarge,
    FileTruncated,
    FileUnreadable,
    MissingField,
    NotFinite,
    NotJson,
    ProtectedHeadTreated,
    SplitGroup,
    UnknownField,
    UserError,
    WrongShape,
    WrongValue,
    WrongVersion,
)
from profiles.head_profile import HeadProfile
from profiles.pruning_plan import Compensation, PruningPlan
from profiles.reading import parse
from profiles.store import MAX_BYTES, load_plan, load_profile, save
from profiles.version_1 import HeadProfileV1

Place = tuple[str | int, ...]
OLD = HeadProfileV1.model_validate_json(PROFILE_V1.read_bytes())
DOCUMENTS = {"profile": example_profile(), "profile of version 1": OLD, "plan": example_plan()}
LOADS: dict[str, Callable[[Path], HeadProfile | PruningPlan]] = {
    "profile": load_profile,
    "profile of version 1": load_profile,
    "plan": load_plan,
}
NAN_AT_6 = to_base64(*[0] * 6, np.nan, *[0] * 5)
RANKINGS: Place = ("rankings",)
SCORE: Place = (*RANKINGS, "score", "tables", "all")
EFFECT: Place = (*RANKINGS, "effect")
RANKING = example_profile().rankings["gradient"].model_dump()
EFFECT_OF_REMOVAL = RANKING | {"tables": {"removed": RANKING["tables"]["all"]}}
IMPORTED = OLD.imported[0].model_dump()
FREE_FORM = {("settings",), ("versions",), ("dataset", "settings")}
OPTIONAL = {
    "plan": [
        ("block_size",),
        ("chat_template",),
        ("image_backend",),
        ("measured", 1, "block_size"),
        ("measured", 1, "dtype"),
    ]
}


def data_of(kind: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(canonical.to_bytes(DOCUMENTS[kind]))
    return data


def refused(kind: str, text: str | bytes, folder: Path) -> UserError:
    """The error that loading the text raises; fails when it raises none, or one that isn't the user's."""
    path = folder / "document.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        LOADS[kind](path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return caught.value


def places(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Values in a document with their places: of an object all, of an array the last; not the document itself."""
    if place:
        yield place, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, (*place, key))
    elif isinstance(value, list) and value:
        yield from places(value[-1], (*place, len(value) - 1))


def dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def changed(data: dict[str, Any], place: Place, change: Callable[[Any, Any], None]) -> str:
    """The document's text after `change(container, key)` at a place."""
    document = copy.deepcopy(data)
    container: Any = document
    for part in place[:-1]:
        container = container[part]
    change(container, place[-1])
    return json.dumps(document)


def put(value: Any) -> Callable[[Any, Any], None]:
    return lambda container, key: container.__setitem__(key, value)


def is_named_by_the_writer(place: Place) -> bool:
    """Whether the keys of the object at a place are names of a writer's choice: rankings, and treatments."""
    return place == ("rankings",) or (place[:1] == ("rankings",) and place[-1] == "tables")


def is_field(place: Place) -> bool:
    return isinstance(place[-1], str) and place[:-1] not in FREE_FORM and not is_named_by_the_writer(place[:-1])


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_field_is_required(kind: str, tmp_path: Path) -> None:
    tried = 0
    for place, _ in places(data_of(kind)):
        if is_field(place) and place not in OPTIONAL.get(kind, ()):
            error = refused(kind, changed(data_of(kind), place, lambda c, k: c.pop(k)), tmp_path)
            assert type(error) is MissingField, place
            assert f": {dotted(place)} is missing" in str(error)
            tried += 1
    assert tried > 25


def test_optional_fields_may_be_missing_but_not_null(tmp_path: Path) -> None:
    data = data_of("plan")
    for place in OPTIONAL["plan"]:
        assert type(refused("plan", changed(data, place, put(None)), tmp_path)) is WrongValue, place
        data = json.loads(changed(data, place, lambda c, k: c.pop(k)))
    path = tmp_path / "older.json"
    path.write_text(json.dumps(data))
    older = load_plan(path)
    assert (older.block_size, older.chat_template, older.image_backend) == (None, None, None)
    assert (older.measured[1].block_size, older.measured[1].dtype) == (None, None)
    # As of the same plan from before these fields existed.
    assert older.digest == "sha256:d19b30f6757ea8394419cb444c456cbe4221ffaa8ede355bc51f35e077e32e69"
    save(older, path)
    assert json.loads(path.read_text()) == data


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_unknown_field_is_refused(kind: str, tmp_path: Path) -> None:
    tried = 0
    for place, value in [((), None), *places(data_of(kind))]:
        if place in FREE_FORM or is_named_by_the_writer(place) or (place and not isinstance(value, dict)):
            continue
        text = changed(data_of(kind), (*place, "extra"), put(0))
        error = refused(kind, text, tmp_path)
        assert type(error) is UnknownField, place
        assert f": {dotted((*place, 'extra'))} is not a field" in str(error)
        tried += 1
    assert tried > 4


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_renamed_field_is_refused(kind: str, tmp_path: Path) -> None:
    for place, value in places(data_of(kind)):
        if is_field(place):

            def rename(container: Any, key: Any, value: Any = value) -> None:
                del container[key]
                container[key.upper()] = value

            error = refused(kind, changed(data_of(kind), place, rename), tmp_path)
            assert type(error) is (UnknownField if place in OPTIONAL.get(kind, ()) else MissingField), place


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_number_is_finite(kind: str, bad: str, tmp_path: Path) -> None:
    tried = 0
    for place, value in places(data_of(kind)):
        if isinstance(value, int | float) and place != ("version",):
            text = changed(data_of(kind), place, put("@bad@")).replace('"@bad@"', bad)
            error = refused(kind, text, tmp_path)
            assert type(error) is NotFinite, (place, error)
            assert f": {dotted(place)} is" in str(error)
            tried += 1
    assert tried > 10


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_type_is_checked(kind: str, tmp_path: Path) -> None:
    """Nothing is taken for something else: no text for numbers, booleans for integers, objects for values."""
    for place, value in places(data_of(kind)):
        if place[-1] in ("seed", "block_size") and value is None:  # test_values_at_odds has them
            continue
        wrong: list[Any] = [["x"], {"x": 1}]
        if place[:-1] not in FREE_FORM:
            wrong += [True, 0.5 if isinstance(value, int) else f"{value}" if isinstance(value, float) else 3]
        if place in FREE_FORM:
            wrong = [["x"], {"x": []}]
        for other in wrong:
            error = refused(kind, changed(data_of(kind), place, put(other)), tmp_path)
            version = place in [("format",), ("version",)]
            expected = {WrongVersion} if version else {WrongValue, UnknownField, MissingField, WrongShape}
            assert type(error) in expected, (place, other, error)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_length_is_checked(kind: str, tmp_path: Path) -> None:
    tried = 0
    for place, value in places(data_of(kind)):
        if isinstance(value, list) and place not in [("measured",), ("imported",), ("selection", "protected")]:
            for other in (value[:-1], [*value, value[-1]]):
                error = refused(kind, changed(data_of(kind), place, put(other)), tmp_path)
                pair = place[:2] == ("selection", "protected")
                assert type(error) in ({MissingField, WrongValue} if pair else {WrongShape}), (place, error)
                if "shape" not in place:
                    assert dotted(place) in str(error)
                tried += 1
    assert tried > 6


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_file_cut_anywhere_is_truncated(kind: str, tmp_path: Path) -> None:
    raw = canonical.to_bytes(DOCUMENTS[kind]).replace(b"synthetic", r"\"}}}}}}}} \\ é 𝄞".encode()).rstrip()
    parse(raw, "whole")
    for end in range(0, len(raw), 3):
        with pytest.raises(FileTruncated, match=f"ends after {end} bytes"):
            parse(raw[:end], "cut")
    for end in range(0, len(raw), 61):
        assert type(refused(kind, raw[:end], tmp_path)) is FileTruncated


@given(data=st.data())
@brief
def test_a_damaged_byte_never_gets_a_traceback(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    kind = data.draw(st.sampled_from(sorted(DOCUMENTS)))
    raw = bytearray(canonical.to_bytes(DOCUMENTS[kind]))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(raw)
    with contextlib.suppress(UserError):
        LOADS[kind](path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=3,
)


@given(data=st.data())
@brief
def test_any_json_in_any_place_never_gets_a_traceback(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind = data.draw(st.sampled_from(sorted(DOCUMENTS)))
    place = data.draw(st.sampled_from([place for place, _ in places(data_of(kind))]))
    path = tmp_path_factory.getbasetemp() / "replaced.json"
    path.write_text(changed(data_of(kind), place, put(data.draw(JSON))))
    with contextlib.suppress(UserError):
        document = LOADS[kind](path)
        path.write_bytes(canonical.to_bytes(document))
        assert LOADS[kind](path) == document


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", FileTruncated),
        (" \n", FileTruncated),
        ("hello", NotJson),
        ('{"a": 1} trailing', NotJson),
        ('{"a": 01}', NotJson),
        ("{'a': 1}", NotJson),
        ("﻿{}", NotJson),
        (b"\xff\xfe{}", NotJson),
        (b'{"a": "\xff"}', NotJson),
        ("[" * 200_000 + "]" * 200_000, NotJson),
        ('{"seed": ' + "1" * 5000 + "}", WrongValue),
        ("[]", WrongValue),
        ("null", WrongValue),
        ("{}", MissingField),
        ('{"a": 1, "a": 2}', DuplicateField),
        ('{"a": {"b": 1, "b": 1}}', DuplicateField),
    ],
)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_not_an_object(text: str | bytes, kind: type[UserError], document: str, tmp_path: Path) -> None:
    assert type(refused(document, text, tmp_path)) is kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\ufeff{}", "begins with a byte order mark; expected JSON in UTF-8 without one"),
        ('{"a": 1} trailing', "line 1 column 10 is not JSON (Extra data); expected one JSON object"),
        ('{"a": "\t"}', "line 1 column 8 is not JSON (Invalid control character at); expected one JSON object"),
        ('{"a" 1}', "line 1 column 6 is not JSON (Expecting ':' delimiter); expected one JSON object"),
    ],
)
def test_what_was_expected_is_not_what_was_found(text: str, said: str, tmp_path: Path) -> None:
    assert said in str(refused("plan", text, tmp_path))


@pytest.mark.parametrize("version", [0, 3, "1", 1.0, True, None, [1]])
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_other_versions_are_refused_before_their_fields(kind: str, version: object, tmp_path: Path) -> None:
    data = data_of(kind) | {"version": version, "field_of_the_future": 1}
    error = refused(kind, json.dumps(data), tmp_path)
    assert type(error) is WrongVersion
    assert repr(version) in str(error)


def test_a_plan_is_not_a_profile(tmp_path: Path) -> None:
    assert type(refused("profile", canonical.to_bytes(example_plan()), tmp_path)) is WrongVersion
    error = refused("plan", canonical.to_bytes(example_profile()), tmp_path)
    assert type(error) is WrongVersion
    assert "vhserve.head-profile" in str(error)
    assert "vhserve.pruning-plan" in str(error)


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


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_files_that_cannot_be_read(load: Callable[[Path], object], tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path, Path("/dev/zero"), Path("nul\0byte"), tmp_path / ("x" * 300)):
        with pytest.raises(FileUnreadable):
            load(path)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(FileTooLarge, match="64 MiB"):
        load(large)
