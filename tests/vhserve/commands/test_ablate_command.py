"""`vhserve ablate` as a user meets it: tables, curves, the dataset's own metric, and one line for each mistake."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from profile_factories import profile_of
from published_datasets import opened, pope

from calibrate.ablation.plans import CURVE, SHORT, TABLE, configurations
from calibrate.ablation.run import ablate
from calibrate.ablation.tables import markdown, published_grid
from calibrate.masking.masked_runs import MaskedRunSettings
from calibrate.masking.treatments import plan_treated
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.batches import make_batch
from calibrate.stats.nothing_right import nothing_right
from profiles.geometry import ModelGeometry, stage_layers
from profiles.store import save
from vhserve.cli import main

OPTIONS = ["one red circle", "two red circles"]
"""Answers of several words, of which a model with random weights says none."""


@pytest.fixture(scope="module")
def profile(llava):
    return profile_of(llava)


def test_the_command(llava, llava_path, profile, tmp_path, capsys):
    path, out = tmp_path / "profile.json", tmp_path / "ablation.json"
    save(profile, path)
    flags = ["ablate", str(path), "--samples", "5", "-k", "3", "--draws", "1", "--out", str(out)]
    flags += ["--treatment", "text_only", "--block-size", "32"]
    assert main([*flags, "--json", "--families", "yes_no,object"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.read_text())
    assert (document["samples"], document["treatment"], document["block_size"]) == (5, "text_only", 32)
    assert [one["family"] for one in document["baseline"]] == ["all", "object", "yes_no"]
    for wrong, said in (
        (["-k", "99"], "stage early has 6; expected at most 6; give smaller numbers with -k"),
        (["-k", "1", "--granularity", "kv_group"], "-k is 1, but granularity kv_group treats 3 query heads together"),
        (["-k", "4", "--granularity", "kv_group"], "give -k 3 or -k 6"),
        (["-k", "1%"], "-k is 1% of 6 heads"),
        (["-k", "0"], "0 heads"),
        (["--curve", "-k", "120%"], "120%"),
        (["--figure", str(tmp_path / "curve.svg")], "--curve"),
        (["--dataset", "nothing"], "nothing"),
        (["--families", "nothing"], "nothing"),
        (["--model", str(tmp_path)], "config.json"),
        (["--out", str(tmp_path / "no" / "folder.json")], "folder"),
    ):
        assert main([*flags, *wrong]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_what_evicted_heads_lose_takes_answers_of_several_tokens(llava, profile, tmp_path, capsys):
    path, out = tmp_path / "profile.json", tmp_path / "ablation.json"
    save(profile, path)
    flags = ["--samples", "6", "--out", str(out), "--block-size", "16"]
    ablating = ["ablate", str(path), "-k", "3", "--rows", "short", "--draws", "1", *flags]
    for command in (ablating, ["rankings", str(path), "--groups", "3", "--group-size", "3", *flags]):
        assert main([*command, "--treatment", "evict"]) == 2
        error = capsys.readouterr().err
        assert "6 of 6 samples" in error
        assert "not asked" in error
        assert error.count("\n") == 1
        assert not out.exists()
    assert main([*ablating, "--treatment", "evict:2", "--families", "object,describe", "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["samples"], document["treatment"]) == (3, "evict:2")
    assert document["dataset"]["settings"]["one_token_answers_left_out"] == 3
    assert "3 of 6 samples" in told.err
    assert main([*ablating, "--treatment", "thinned:2", "--families", "object,describe", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["samples"] == 6
    assert "not asked" not in told.err


@pytest.mark.parametrize(("command", "flags"), [("ablate", ["-k", "3"]), ("rankings", ["--group-size", "2"])])
def test_another_model_than_the_profile_s_is_refused_before_it_is_loaded(
    command, flags, profile, tmp_path, capsys, monkeypatch
):
    def loads(*args, **options):
        raise AssertionError("a model is loaded")

    save(profile, tmp_path / "profile.json")
    monkeypatch.setattr("calibrate.models.loading.load_model", loads)
    out = ["--samples", "2", "--out", str(tmp_path / "out.json")]
    assert main([command, str(tmp_path / "profile.json"), "--model", "demo", *out, *flags]) == 2
    assert "this profile is for" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("ablate", ["-k", "3", "--rows", "short", "--draws", "1"]),
        ("rankings", ["--groups", "3", "--group-size", "2"]),
    ],
)
def test_a_model_that_is_never_right_is_said(command, flags, profile, tmp_path, capsys):
    Image.new("RGB", (72, 72), "red").save(tmp_path / "red.png")
    records = [
        {
            "image": "red.png",
            "question": f"How many red circles are there? {number}",
            "answer": answer,
            "options": OPTIONS,
        }
        for number, answer in enumerate(OPTIONS)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    save(profile, tmp_path / "profile.json")
    asked = ["--dataset", str(tmp_path / "mine.jsonl"), "--split", "all", "--out", str(tmp_path / "out.json")]
    assert main([command, str(tmp_path / "profile.json"), *asked, *flags]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "samples right" in line]
    assert said == [f"vhserve: warning: {nothing_right('the whole model', (0, len(OPTIONS)))}"]


def test_a_curve_is_a_table_and_a_figure(llava, profile, tmp_path, capsys):
    path, out, figure = tmp_path / "profile.json", tmp_path / "curve.json", tmp_path / "curve.svg"
    save(profile, path)
    flags = ["ablate", str(path), "--samples", "5", "--curve", "-k", "50%,100%", "--draws", "2", "--out", str(out)]
    assert main([*flags, "--treatment", "text_only", "--figure", str(figure), "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| KV groups | 50% | 100% |"
    assert [line.split(" | ")[0] for line in lines[5:] if line.startswith("|")] == [
        f"| {select} {stage}" for select, stage in CURVE.rows
    ]
    rows = json.loads(out.read_text())["rows"]
    assert {(row["stage"], row["share"], row["k"]) for row in rows} == {
        (stage, share, len(stage_layers(stage, profile.geometry.layers)) * profile.geometry.query_heads * share)
        for stage in ("late", "all")
        for share in (0.5, 1.0)
    }
    # With all heads of a stage treated, it does not matter which come first.
    whole_late = [row["figures"] for row in rows if (row["stage"], row["share"]) == ("late", 1.0)]
    assert all(figures == whole_late[0] for figures in whole_late)
    drawing = ElementTree.parse(figure).getroot()
    assert drawing.tag.endswith("svg")


def test_the_dataset_s_own_metric_stands_beside_the_accuracy(llava, profile, tmp_path):
    questions = opened("pope", pope(tmp_path / "data"))
    chosen = configurations(profile, ["3"], shape=SHORT, draws=1, seed=0, granularity="kv_group")
    result = ablate(
        llava, profile, questions, chosen, MaskedRunSettings(tmp_path / "ablation.json", show_progress=False)
    )
    assert result.metric == "yes_no"
    samples = list(questions)
    batch = make_batch(llava, samples)

    def by_hand():
        tokens = next_token_logits(llava, batch).argmax(-1).tolist()
        said = ["no" not in llava.processor.tokenizer.decode([token]).lower().split() for token in tokens]
        return {"yes_ratio": np.mean(said)} | {
            "accuracy": np.mean([yes == (one.answer == "yes") for yes, one in zip(said, samples, strict=True)])
        }

    assert by_hand().items() <= result.baseline_published["all"].items()
    for one, row in zip(chosen, result.rows, strict=True):
        assert list(row.published) == ["adversarial", "popular", "random", "all"]
        with plan_treated(llava.model, one.plan):
            assert by_hand().items() <= row.published["all"].items()
    text = markdown(published_grid(result))
    assert text.startswith("**F1, share of yes, as the dataset's authors count")
    assert text.count("\n| ") == 2 + 1 + len(chosen)
    assert published_grid(result.model_copy(update={"metric": "accuracy"})) is None


@pytest.mark.parametrize(
    ("query_heads", "kv_heads", "expected"), [(8, 8, "4 8 16"), (28, 4, "7 14 28"), (8, 2, "4 8 16")]
)
def test_budgets_that_are_not_given_are_whole_kv_groups(query_heads, kv_heads, expected):
    sizes = {"layers": 6, "head_size": 4, "hidden_size": 8, "image_tokens": 0}
    geometry = ModelGeometry(query_heads=query_heads, kv_heads=kv_heads, **sizes)
    assert list(TABLE.budgets_of(geometry, geometry.granularity)) == expected.split()
    assert CURVE.budgets_of(geometry, geometry.granularity) == CURVE.budgets
