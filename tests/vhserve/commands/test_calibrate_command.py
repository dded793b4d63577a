"""`vhserve calibrate` as a user runs it: in processes of its own, interrupted, and under torchrun."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from result_factories import grouped_profile
from result_factories import profile as profile_of_heads

from profiles.planning.rankings import group_ranking, ranking
from profiles.store import load_profile
from vhserve.cli import main
from vhserve.commands.calibrate import head_table, summarise

SHOWN = ("image_weight", "concentration", "score")
FLAGS = ["calibrate", "--dtype", "float32", "--device", "cpu", "--seed", "5"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(arguments, launcher=()):
    command = [sys.executable, *launcher, "-m", "vhserve.cli", *FLAGS, *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_ctrl_c_then_torchrun_then_the_same_numbers(llava_path, tmp_path, capsys):
    """One process is interrupted and continued; two processes share the same samples; the profiles agree."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    flags = ["--model", str(llava_path), "--samples", "101", "--batch-size", "4", "--json", "--out"]
    process = start([*flags, str(one)])
    state = one.with_name("one.json.partial")
    # The first line of progress comes with the first batch; the state is saved when the signal comes.
    line = process.stderr.readline()
    assert line.startswith("calibrating 4/101"), line
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130, err
    assert out == ""
    assert "run the same command again to continue" in err
    assert "Traceback" not in err
    assert state.exists()
    assert not one.exists()

    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start([*flags, str(two)], launcher)
    assert main([*FLAGS, *flags, str(one)]) == 0
    out_one = capsys.readouterr().out
    code, out_two, err = finish(process)
    assert code == 0, err
    for text, path in ((out_one, one), (out_two, two)):
        assert json.loads(text)["profile"] == str(path)
        assert json.loads(text)["samples"] == 101
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.json", "two.json"]

    a, b = load_profile(one), load_profile(two)
    assert (a.settings["processes"], b.settings["processes"]) == (1, 2)
    assert (a.samples, a.samples_with_box) == (b.samples, b.samples_with_box)
    assert a.dataset == b.dataset
    assert a.rankings.keys() == b.rankings.keys()
    for name in a.rankings:
        np.testing.assert_allclose(ranking(a, name), ranking(b, name), rtol=0, atol=1e-6)
    np.testing.assert_allclose(a.mean_output, b.mean_output, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "missing-folder/profile.json"], "missing-folder/profile.json"),
        (["--model", "lava-1.5-7b"], "llava-1.5-7b"),
        (["--model", "llava-1.5-7b"], "HF_HUB_OFFLINE"),
        (["--model", "vip-llava-phi-3-3.8b"], "LLaVA's own format"),
        (["--dataset", "pictures"], "pictures"),
        (["--dataset", "missing.jsonl"], "missing.jsonl"),
        (["--samples", "0"], "--samples"),
        (["--batch-size", "none"], "--batch-size"),
        (["--split", "test"], "test"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments, words, llava_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    defaults = {"--model": str(llava_path), "--samples": "2"}
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    flags = [text for pair in (defaults | given).items() for text in pair]
    assert main(["calibrate", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [1, 2])
def test_what_stands_out_is_heads_or_kv_groups(size):
    one = grouped_profile() if size == 2 else profile_of_heads()
    values = one.scores().reshape(6, -1, size).mean(2)
    first, *_, last = summarise(one)["top"]
    place = {"head": 0} if size == 1 else {"group": 0, "heads": [0, 1]}
    assert first == {"layer": 0, "stage": "early", **place, **dict.fromkeys(SHOWN, values[0, 0])}
    assert last["score"] == np.sort(values.ravel())[-10]
    stages = {stage: means["score"] for stage, means in summarise(one)["stages"].items()}
    assert stages == pytest.approx({"early": 20.5 / 30, "middle": 12.5 / 30, "late": 4.5 / 30})
    headings = [column.header for column in head_table(one).columns]
    assert headings[:3] == (["layer", "head", "stage"] if size == 1 else ["layer", "group", "heads"])


def test_an_unwritable_path_is_told_before_the_model_is_looked_for(tmp_path, capsys):
    assert main(["calibrate", "--model", "no such model", "--out", str(tmp_path / "no" / "profile.json")]) == 2
    assert "profile.json" in capsys.readouterr().err


def test_what_it_prints(llava_path, tmp_path, capsys):
    out = tmp_path / "profile.json"
    flags = ["--model", str(llava_path), "--samples", "9", "--batch-size", "4", "--device", "cpu", "--out", str(out)]
    assert main(["calibrate", *flags]) == 0
    shown, progress = capsys.readouterr()
    assert "calibrating" in progress
    profile = load_profile(out)
    scores = group_ranking(profile, "score")  # two KV heads for six query heads
    layer, group = np.unravel_index(scores.argmax(), scores.shape)
    first = next(line for line in shown.splitlines() if f"{scores.max():.3f}" in line and line.count("│") == 8)
    assert [cell.strip() for cell in first.split("│")[1:4]] == [str(layer), str(group), ["0-2", "3-5"][group]]
    assert "Most visual KV groups of 3 query heads" in shown
    assert all(stage in shown for stage in ("early", "middle", "late"))
    assert "9 samples" in shown
    assert progress.splitlines()[-1] == f"vhserve: wrote {out}"
    assert profile.dataset.split == "choosing"
    assert {"effect", "gradient"} <= profile.rankings.keys()  # what plans are made by

    assert main(["calibrate", *flags, "--no-effects", "--out", str(tmp_path / "without.json")]) == 0
    assert "effect" not in load_profile(tmp_path / "without.json").rankings
    capsys.readouterr()

    assert main(["calibrate", *flags, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["digest"] == profile.digest
    assert summary["top"][0]["score"] == scores.max()
    assert summary["stages"]["early"]["score"] == pytest.approx(scores[:1].mean())
    assert [head["score"] for head in summary["top"]] == sorted(scores.ravel(), reverse=True)[:10]
