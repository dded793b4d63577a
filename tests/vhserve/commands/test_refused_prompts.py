"""Questions of which no prompt can be made, in every command that measures a model: one line that names the record."""

import json

import pytest
from PIL import Image
from profile_factories import profile_of

from profiles.store import load_profile, save
from vhserve.cli import main

ASKED = {"image": "a.png", "answer": "yes", "options": ["yes", "no"]}
COMMANDS = {
    "calibrate": ["calibrate"],
    "ablate": ["ablate", "PROFILE", "-k", "3", "--draws", "1"],
    "rankings": ["rankings", "PROFILE"],
    "analyze": ["analyze", "-k", "3"],
}


@pytest.fixture
def run(llava, llava_path, tmp_path, capsys):
    """Run a command on questions; returns its exit code, the last line on stderr, and what it wrote."""
    Image.new("RGB", (72, 72), (200, 30, 30)).save(tmp_path / "a.png")
    save(profile_of(llava), tmp_path / "profile.json")

    def main_on(command, *questions):
        path, out = tmp_path / "set.jsonl", tmp_path / "out.json"
        path.write_text("".join(json.dumps(ASKED | {"question": one}) + "\n" for one in questions))
        words = [str(tmp_path / "profile.json") if word == "PROFILE" else word for word in COMMANDS[command]]
        code = main([*words, "--model", str(llava_path), "--dataset", str(path), "--samples", "9", "--out", str(out)])
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return code, error.strip().splitlines()[-1] if error.strip() else "", out

    return main_on


def finished(out):
    """What a command left that is not the state of a run to be continued; `analyze` writes a folder."""
    return [path for path in (out, *out.glob("*")) if path.is_file() and path.suffix != ".partial"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_placeholder_among_the_words(run, command):
    code, line, out = run(command, "Is it red ?", "Is this <image> red ?")
    assert code == 2
    assert "set.jsonl: line 2: the question has <image> among its words" in line
    assert not finished(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_prompt_longer_than_the_model(run, command):
    code, line, out = run(command, "Is it red ?", "red " * 3000)
    assert code == 2
    assert "sample set.jsonl:2: its prompt has 3,08" in line
    assert "at most 2,047" in line
    assert not finished(out)


def test_a_placeholder_at_the_beginning_or_end(run):
    questions = ["<image>\nIs it red ?", "Is it blue ?\n<image>", "<image> how many ?"]
    code, _, out = run("calibrate", *questions)
    with_placeholders = load_profile(out).rankings
    assert code == 0
    run("calibrate", "Is it red ?", "Is it blue ?", "how many ?")
    assert load_profile(out).rankings == with_placeholders
