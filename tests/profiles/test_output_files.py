"""Outputs that would replace an input, or a document of another kind, are refused before anything is done."""

import json
from pathlib import Path

import pytest
from documents import example_plan, example_profile

from profiles.errors import FileUnwritable
from profiles.files import check_output, document_format
from profiles.store import save
from vhserve.cli import main

PROFILE, PLAN = "vhserve.head-profile", "vhserve.pruning-plan"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    save(example_profile(), tmp_path / "profile.json")
    return tmp_path / "profile.json"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    save(example_plan(), tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_a_document_of_the_same_kind_and_an_empty_file_are_replaced(profile: Path, tmp_path: Path) -> None:
    check_output(profile, document=PROFILE)
    (tmp_path / "empty").touch()
    check_output(tmp_path / "empty", document=PROFILE)
    check_output(tmp_path / "new", document=PROFILE)
    (tmp_path / "page.html").write_text("<p>an older page")
    check_output(tmp_path / "page.html")
    assert [document_format(path) for path in (profile, tmp_path / "page.html")] == [PROFILE, None]


@pytest.mark.parametrize("content", ["{", "[1]", "question,answer", json.dumps({"format": 1}), "[" * 100_000])
def test_what_is_no_document_is_not_replaced_by_one(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text(content)
    with pytest.raises(FileUnwritable, match="no document of vhserve"):
        check_output(path, document=PROFILE)
    assert path.read_text() == content


def test_another_kind_and_an_input_are_refused(profile: Path, plan: Path, tmp_path: Path) -> None:
    with pytest.raises(FileUnwritable, match=PLAN):
        check_output(plan, document=PROFILE)
    with pytest.raises(FileUnwritable, match="document of the format"):
        check_output(plan)  # a page or a figure
    (tmp_path / "link.json").symlink_to(profile)
    with pytest.raises(FileUnwritable, match="this command reads it"):
        check_output(tmp_path / "link.json", document=PROFILE, inputs=["synthetic", profile])


COMMANDS = [
    ["ablate", "{profile}", "--out", "{profile}"],
    ["ablate", "{profile}", "--out", "{plan}"],
    ["rankings", "{profile}", "--out", "{profile}"],
    ["calibrate", "--out", "{plan}"],
    ["calibrate", "--dataset", "{data}", "--out", "{data}"],
    ["plan", "{profile}", "--remove", "1", "--stage", "all", "--out", "{profile}"],
    ["plan", "{profile}", "--remove", "1", "--stage", "all", "--out", "{data}"],
    ["profile", "import", "{profile}", "{data}", "--kind", "sparsemm", "--out", "{plan}"],
    ["evaluate", "--base-url", "http://127.0.0.1:9/v1", "--out", "{plan}"],
    ["evaluate", "--base-url", "http://127.0.0.1:9/v1", "--dataset", "{data}", "--out", "{data}"],
    ["evaluate", "--base-url", "http://127.0.0.1:9/v1", "--attach", "{profile}"],
    ["loadtest", "http://127.0.0.1:9/v1", "--csv", "{plan}"],
    ["loadtest", "http://127.0.0.1:9/v1", "--out", "{profile}"],
    ["analyze", "--out", "{page}"],
    ["analyze", "--ablation", "{page}", "--out", "{page}"],
    ["demo", "--out", "{folder}"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_replaces_what_it_must_not(
    command: list[str], profile: Path, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, page = tmp_path / "data.jsonl", tmp_path / "report.html"
    data.write_text('{"image": "a.png", "question": "?", "answer": "a"}\n')
    page.write_bytes(plan.read_bytes())
    files = {path: path.read_bytes() for path in (profile, plan, data, page)}
    names = {"profile": profile, "plan": plan, "data": data, "page": page, "folder": tmp_path}
    assert main([word.format(**names) for word in command]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "cannot write" in line
    assert {path: path.read_bytes() for path in files} == files
    assert set(tmp_path.iterdir()) == set(files)
