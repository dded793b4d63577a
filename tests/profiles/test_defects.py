"""Every way in which any field can be malformed has its own named error, with the file and the field's full path."""

import json
from pathlib import Path
from typing import Any

import pytest
from defects import DOCUMENTS, Place, changed, data_of, dotted, places, put, refused

from profiles.errors import MissingField, NotFinite, UnknownField, WrongShape, WrongValue, WrongVersion
from profiles.store import load_plan, save

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
