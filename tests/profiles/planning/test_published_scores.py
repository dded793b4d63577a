"""Scores of other projects, in files as they publish them, and what is said of those that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from documents import GEOMETRY, example_profile, profile_of

from profiles.errors import FileTruncated, FileUnreadable, ScoresBroken, WrongShape
from profiles.geometry import ModelGeometry
from profiles.planning.published_scores import read_scores, with_scores
from profiles.planning.rankings import ranking
from profiles.ranking import ALL
from profiles.store import load_profile, save

FEW = ModelGeometry(layers=2, query_heads=3, kv_heads=3, head_size=1, hidden_size=5, image_tokens=6)


def sparsemm(path: Path, **changes: object) -> Path:
    """As `visual_head/llava_visual_head.py` of SparseMM writes it: heads in order, a list of hits for each."""
    fields: dict[str, object] = {f"{layer}-{head}": [layer, head / 4, 0] for layer in range(2) for head in range(3)}
    path.write_text(json.dumps({key: value for key, value in (fields | changes).items() if value != "leave out"}))
    return path


def duo_attention(path: Path, gates: np.ndarray) -> Path:
    """As `save_full_attention_heads` of DuoAttention writes it."""
    np.savetxt(path, gates, delimiter="\t")
    return path


def test_sparsemm_s_scores_are_means_over_samples(tmp_path: Path) -> None:
    found = read_scores(sparsemm(tmp_path / "llava-v1.6.json"), "sparsemm", FEW)
    expected = [[(layer + head / 4) / 3 for head in range(3)] for layer in range(2)]
    np.testing.assert_allclose(found.tables[ALL], expected)
    assert found.source == "llava-v1.6.json"
    assert found.digest is not None
    assert found.digest.startswith("sha256:")
    one_number = read_scores(sparsemm(tmp_path / "x.json", **{"1-2": 0.5}), "sparsemm", FEW)
    assert one_number.tables[ALL][1][2] == 0.5


def test_duo_attention_s_gates_are_those_of_all_query_heads_of_a_kv_head(tmp_path: Path) -> None:
    gates = np.array([[-9.6e-05, 1.0], [0.25, 0.5], [1.0001, 0.125]])
    found = read_scores(duo_attention(tmp_path / "full_attention_heads.tsv", gates), "duo_attention", GEOMETRY)
    assert found.tables[ALL] == [[0, 0, 1, 1], [0.25, 0.25, 0.5, 0.5], [1, 1, 0.125, 0.125]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"0-1": "leave out"}, "field '0-1' is missing"),
        ({"2-0": [1]}, "field '2-0' is no head"),
        ({"0-3": [1]}, "field '0-3' is no head of this model; expected 2 layers of 3 heads"),
        ({"layer": 3}, "field 'layer' is not a head"),
        ({"0-1": []}, "field '0-1' is an empty list"),
        ({"0-1": [0, None]}, "field '0-1': entry 1 is None"),
        ({"0-1": [0, float("nan")]}, "entry 1 is nan"),
        ({"0-1": ["1"]}, "entry 0 is '1'"),
        ({"0-1": True}, "entry 0 is True"),
    ],
)
def test_sparsemm_files_that_do_not_fit(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    path = sparsemm(tmp_path / "scores.json", **changes)
    with pytest.raises(ScoresBroken) as caught:
        read_scores(path, "sparsemm", FEW)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\t2\n1\t2\n", "has 2 lines; expected 3 layers of 2 KV heads"),
        ("1\t2\n1\t2\t3\n1\t2\n", "line 2 has 3 fields; expected 3 layers of 2 KV heads"),
        ("1\t2\n\n1\tx\n1\t2\n", "line 3, field 2 is 'x'"),
        ("1\t2\n1\tinf\n1\t2\n", "line 2, field 2 is 'inf'"),
    ],
)
def test_duo_attention_files_that_do_not_fit(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "full_attention_heads.tsv"
    path.write_text(text)
    with pytest.raises(ScoresBroken) as caught:
        read_scores(path, "duo_attention", GEOMETRY)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    with pytest.raises(FileUnreadable):
        read_scores(path, "sparsemm", FEW)
    path.write_bytes(b'{"0-0": [1,')
    with pytest.raises(FileTruncated):
        read_scores(path, "sparsemm", FEW)
    path.write_bytes(b"[1]")
    with pytest.raises(ScoresBroken, match="a field for each head"):
        read_scores(path, "sparsemm", FEW)
    path.write_bytes(b"\xff\xff")
    with pytest.raises(ScoresBroken, match="byte 0 is not UTF-8"):
        read_scores(path, "duo_attention", GEOMETRY)


def test_a_profile_keeps_imported_scores_and_ranks_by_them(tmp_path: Path) -> None:
    gates = np.array([[0.0, 1.0], [0.25, 0.5], [1.0, 0.125]])
    scores = read_scores(duo_attention(tmp_path / "a.tsv", gates), "duo_attention", GEOMETRY)
    profile = with_scores(example_profile(), "duo_attention", scores)
    assert profile.rankings == example_profile().rankings | {"duo_attention": scores}
    np.testing.assert_array_equal(ranking(profile, "duo_attention", "removed"), gates.repeat(2, axis=1))
    others = read_scores(duo_attention(tmp_path / "b.tsv", 1 - gates), "duo_attention", GEOMETRY)
    again = with_scores(profile, "duo_attention", others)
    assert again.rankings == profile.rankings | {"duo_attention": others}
    save(again, tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == again
    with pytest.raises(WrongShape, match=r"a\.tsv"):
        with_scores(profile_of(np.zeros((3, 2))), "duo_attention", scores)
