"""The README's commands on one file: heads are chosen by one half of its pictures and measured on the other."""

import json

import pytest

from calibrate.datasets import open_dataset
from profiles.store import load_plan, load_profile
from vhserve.cli import main

PICTURES = 12


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Two questions about each picture, with answers of several words."""
    folder = tmp_path_factory.mktemp("mine")
    lines = []
    for number, sample in enumerate(open_dataset("synthetic", samples=PICTURES, seed=0)):
        sample.image.save(folder / f"{number}.png")
        for question, answer in ((sample.question, "red circle"), ("What is it?", "red square")):
            lines.append({"image": f"{number}.png", "question": question, "answer": answer})
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_one_file_from_calibrate_to_rankings(mine, llava_path, tmp_path, capsys):
    profile_path, plan_path = tmp_path / "profile.json", tmp_path / "plan.json"
    given = ["--dataset", str(mine), "--batch-size", "8"]
    assert main(["calibrate", "--model", str(llava_path), *given, "--out", str(profile_path)]) == 0
    profile = load_profile(profile_path)
    assert profile.dataset.split == "choosing"
    assert main(["plan", str(profile_path), "--remove", "3", "--stage", "all", "--out", str(plan_path)]) == 0
    assert load_plan(plan_path).chosen_on == profile.dataset
    capsys.readouterr()

    table = ["ablate", str(profile_path), *given, "-k", "3", "--draws", "1", "--rows", "short"]
    groups = ["rankings", str(profile_path), *given, "--groups", "3", "--group-size", "2", "--samples", "4"]
    for number, (command, split, shared) in enumerate(
        ((table, "measuring", 0), (groups, "measuring", 0), (table, "all", len(profile.dataset.pictures)))
    ):
        out = tmp_path / f"{number}.json"
        assert main([*command, "--split", split, "--out", str(out)]) == 0
        result = json.loads(out.read_text())
        assert (result["dataset"]["split"], result["settings"]["shared_pictures"]) == (split, shared)
        said = [line for line in capsys.readouterr().err.splitlines() if "heads were chosen by" in line]
        assert len(said) == bool(shared)
    assert result["samples"] == 2 * PICTURES
    assert f"by {shared} of the {PICTURES} pictures that are measured on (profile {profile_path})" in said[0]


def test_a_file_too_small_is_named_once_and_taken_whole(mine, llava_path, tmp_path, capsys):
    few = mine.with_name("few.jsonl")
    few.write_text("".join(mine.read_text().splitlines(keepends=True)[:2]), encoding="utf-8")
    out = tmp_path / "profile.json"
    assert main(["calibrate", "--model", str(llava_path), "--dataset", str(few), "--out", str(out)]) == 0
    assert capsys.readouterr().err.count("too small to be divided") == 1
    assert load_profile(out).dataset.split == "all"
