"""Files that are no profile and no plan: cut, damaged, of another kind or version, or not to be read."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from defects import DOCUMENTS, LOADS, changed, data_of, places, put, refused
from documents import brief, example_plan, example_profile
from hypothesis import given
from hypothesis import strategies as st

from profiles import canonical
from profiles.errors import (
    DuplicateField,
    FileTooLarge,
    FileTruncated,
    FileUnreadable,
    MissingField,
    NotJson,
    UserError,
    WrongValue,
    WrongVersion,
)
from profiles.reading import parse
from profiles.store import MAX_BYTES


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
