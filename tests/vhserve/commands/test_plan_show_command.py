"""`vhserve plan show`: every head of the plan on the map, how it was chosen, and what was measured."""

import json
import re
from pathlib import Path

import pytest
from result_factories import grouped_plan, grouped_profile, plan

from profiles.measurement import Measurement
from profiles.pruning_plan import PruningPlan
from profiles.store import save
from vhserve.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "plan-json.md"
MEASURED = Measurement(
    dataset="mine.jsonl", arm="pruned", family="all", samples=20, correct=15, accuracy=0.75, low=0.5, high=0.9
)


def shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, given: PruningPlan, *flags: str) -> str:
    path = tmp_path / "plan.json"
    save(given, path)
    capsys.readouterr()
    assert main(["plan", "show", str(path), *flags]) == 0
    return capsys.readouterr().out


def test_the_map_has_every_head_and_the_tables_every_number(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    made = plan()
    out = shown(capsys, tmp_path, made)
    lines = out.splitlines()
    rows = [line for line in lines if line[7:10].strip().isdigit() and line[10:11] == " "]
    assert len(rows) == made.geometry.layers
    marks = {"#": "full", "t": "text_only", ".": "removed"}
    for line, row in zip(rows, made.treatments, strict=True):
        assert [marks[mark] for mark in line[11 : 11 + len(row)].replace("@", "#")] == row
    assert made.digest in out.replace("\n", "")
    assert "Never measured" in out
    assert "KV cache per text token" in out
    assert max(map(len, lines[1:])) <= 80 or not any("│" in line for line in lines if len(line) > 80)


def test_measured_accuracies_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = shown(capsys, tmp_path, plan().model_copy(update={"measured": [MEASURED]}))
    assert "75.0% [50.0, 90.0]" in out
    assert "mine.jsonl" in out
    assert "Never measured" not in out


def test_figures_of_a_model_that_is_never_right_are_said_to_mean_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    none = MEASURED.model_copy(update={"arm": "baseline", "correct": 0, "accuracy": 0.0, "low": 0.0, "high": 0.2})
    path = tmp_path / "plan.json"
    save(plan().model_copy(update={"measured": [none, MEASURED]}), path)
    assert main(["plan", "show", str(path)]) == 0
    said = capsys.readouterr().err
    assert f"{plan().model.name} as it is, on mine.jsonl, answers none of 20 samples right" in said


def test_json_has_the_numbers_and_the_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = plan().model_copy(update={"measured": [MEASURED]})
    document = json.loads(shown(capsys, tmp_path, made, "--json"))
    assert document["treatments"] == made.treatments
    assert document["plan_digest"] == made.digest
    assert document["selection"]["method"] == made.selection.method
    assert document["measured"][0]["correct"] == 15


def test_the_page_on_the_json_has_every_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {by for _, by in rows} == {"both", "`plan`", "`plan show`"}
    save(grouped_profile(), tmp_path / "profile.json")
    flags = ["plan", str(tmp_path / "profile.json"), "--remove", "2", "--protect-top", "0", "--json"]
    assert main(flags) == 0
    made = json.loads(capsys.readouterr().out)
    assert made.keys() == {key for key, by in rows if by != "`plan show`"}
    document = json.loads(shown(capsys, tmp_path, grouped_plan(), "--json"))
    assert document.keys() == {key for key, by in rows if by != "`plan`"}
    assert made["heads_together"] == document["heads_together"] == 2
    assert json.loads(shown(capsys, tmp_path, plan(), "--json"))["heads_together"] == 1


def test_what_is_no_plan_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{}")
    for args in (["missing.json"], [str(tmp_path / "profile.json")], []):
        assert main(["plan", "show", *args]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
