"""The results file: what is written can be read, and what is not a results file is refused by name."""

import json
from pathlib import Path

import pytest
from result_factories import DATASET, arm

from profiles.errors import FileUnreadable, FileUnwritable
from vhserve.evaluation.errors import ResultsBroken
from vhserve.evaluation.pairing import pair
from vhserve.evaluation.results import Evaluation, load, save


def evaluation() -> Evaluation:
    arms = [arm("ccwo"), arm("cwce", "pruned", "sha256:" + "00" * 32)]
    return Evaluation(
        dataset=DATASET,
        samples=4,
        broken=["sample/9: no picture"],
        seed=3,
        arms=arms,
        paired=pair(*arms),
        arguments={"samples": 4, "families": None},
        versions={"vhserve": "0.1.0"},
        commit=None,
        started="2026-01-02T03:04:05+00:00",
    )


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save(evaluation(), path)
    assert load(path) == evaluation()
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda data: data.pop("arms"), "arms"),
        (lambda data: data.update(version=2), "version"),
        (lambda data: data.update(more=1), "more"),
        (lambda data: data["arms"][0]["answers"][1].update(seconds=float("nan")), "arms.0.answers.1.seconds"),
        (lambda data: data["arms"][0]["answers"][1].update(outcome="great"), "arms.0.answers.1.outcome"),
        (lambda data: data["arms"][1].update(name="baseline"), "different names"),
        (lambda data: data["paired"][0].update(p="low"), "paired.0.p"),
    ],
)
def test_a_broken_field_is_named(tmp_path: Path, change, named: str) -> None:
    path = tmp_path / "results.json"
    data = json.loads(evaluation().model_dump_json())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ResultsBroken, match=named):
        load(path)


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save(evaluation(), path)
    text = path.read_text()
    for end in range(0, len(text) - 2, 97):
        path.write_text(text[:end])
        with pytest.raises(ResultsBroken):
            load(path)
    with pytest.raises(FileUnreadable):
        load(tmp_path / "missing.json")


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(FileUnwritable, match="no-folder"):
        save(evaluation(), tmp_path / "no-folder" / "results.json")
