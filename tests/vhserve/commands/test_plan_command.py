"""`vhserve plan` as a user meets it: the numbers, the table, and one line for each mistake with nothing written."""

import json
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiles.geometry import ModelGeometry, ModelRef
from profiles.head_profile import DatasetRef, HeadProfile, ScoreFormula
from profiles.ranking import Ranking
from profiles.store import load_plan, load_profile, save
from profiles.treatments import TREATMENTS, budgeted
from vhserve.cli import main
from vhserve.commands.plan import Plan
from vhserve.engine.kv_cache.saving import prompt_saving


def write_profile(path: Path, kv_heads: int, *, name: str = "demo", means: bool = True, effects: bool = False) -> Path:
    """12 layers of 8 heads; scores, all different, fall with the layer and rise with the head; effects reverse them."""
    scores = (np.arange(12)[::-1, None] * 8 + np.arange(8)) / 96
    geometry = ModelGeometry(
        layers=12, query_heads=8, kv_heads=kv_heads, head_size=32, hidden_size=192, image_tokens=144
    )
    rankings = dict.fromkeys(("image_weight", "concentration", "score"), Ranking.of(scores))
    if effects:
        rankings["effect"] = Ranking(tables=dict.fromkeys(("removed", "text_only"), (1 - scores).tolist()))
    profile = HeadProfile(
        model=ModelRef(name=name, revision="sha256:00", architecture="LlavaForConditionalGeneration"),
        geometry=geometry,
        dataset=DatasetRef(name="synthetic", digest=None, split=None, settings={}),
        samples=1,
        samples_skipped=0,
        samples_with_box=0,
        seed=0,
        formula=ScoreFormula(name="layer*weight*concentration", layer_function="none", epsilon=1e-9),
        settings={},
        versions={},
        rankings=rankings,
        mean_output=np.ones((12, 8, 32), dtype=np.float32) if means else None,
    )
    save(profile, path)
    return path


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return write_profile(tmp_path / "profile.json", kv_heads=8)


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    return write_profile(tmp_path / "profile.json", kv_heads=2)


def numbers(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    assert main(["plan", *map(str, args), "--serve-on", "cpu", "--json"]) == 0
    captured = capsys.readouterr()
    assert all(line.startswith(("vhserve: note: ", "vhserve: wrote ")) for line in captured.err.splitlines())
    document: dict[str, Any] = json.loads(captured.out)
    return document


def test_ranks_by_effect_where_the_profile_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = write_profile(tmp_path / "profile.json", kv_heads=8, effects=True)
    assert main(["plan", str(profile), "--remove", "8", "--protect-top", "0"]) == 0
    shown = capsys.readouterr()
    assert shown.err == f"vhserve: wrote {tmp_path / 'plan.json'}\n"
    assert "Heads chosen by effect" in shown.out
    assert "Not measured yet" in shown.out
    plan = load_plan(tmp_path / "plan.json")
    assert plan.selection.rank_by == "effect"
    assert plan.heads("removed") == [(8, head) for head in range(8)]  # the late heads of highest score


def test_says_so_where_it_has_to_rank_by_score(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(profile), "--remove", "8"]) == 0
    note, written = capsys.readouterr().err.splitlines()
    assert written == f"vhserve: wrote {profile.parent / 'plan.json'}"
    assert "calibrate without --no-effects" in note
    assert load_plan(profile.parent / "plan.json").selection.rank_by == "score"
    assert main(["plan", str(profile), "--remove", "8", "--rank-by", "score"]) == 0
    assert capsys.readouterr().err.splitlines() == [written]  # asked for


def test_defaults_remove_the_lowest_late_heads(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = numbers(capsys, profile, "--remove", 8)
    plan = load_plan(profile.parent / "plan.json")
    assert plan.heads("removed") == [(11, head) for head in range(8)]
    assert plan.profile_digest == load_profile(profile).digest
    assert plan.selection.protect_top == 10
    assert plan.selection.protected == [(0, head) for head in range(8)] + [(1, 6), (1, 7)]
    assert plan.granularity == "query_head"
    none = dict.fromkeys(TREATMENTS, 0)
    assert shown == {
        "plan": str(profile.parent / "plan.json"),
        "ranked_by": "score",
        "measured": False,
        "plan_digest": plan.digest,
        "model": "demo",
        "dtype": "bfloat16",
        "block_size": 32,
        "device": "cpu",
        "heads": {
            "early": none | {"full": 32},
            "middle": none | {"full": 32},
            "late": none | {"full": 24, "removed": 8},
        },
        "kv_bytes_per_token": {"baseline": 96 * 2 * 32 * 2, "pruned": 88 * 2 * 32 * 2},
        "kv_bytes_per_image_token": {"baseline": 96 * 2 * 32 * 2, "pruned": 88 * 2 * 32 * 2},
        "weight_bytes_saved": 8 * 4 * 32 * 192 * 2,
        "usual_prompt": {"text_tokens": 70, "image_tokens": 144},
        "prompt": {"text_tokens": 70, "image_tokens": 144},
        "ideal_concurrency": pytest.approx(96 / 88),
        "concurrency": pytest.approx(96 / 88),
        "concurrency_in_prefill": pytest.approx(96 / 88),
        "kv_cache_groups": 1,
        "heads_together": 1,
        "image_exit": None,
    }


def test_every_flag_reaches_the_plan(grouped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = grouped.parent / "other.json"
    shown = numbers(
        capsys, grouped, "--remove", 8, "--text-only", "25%", "--stage", "middle", "--select", "random", "--seed", 7,
        "--protect-top", 5, "--granularity", "kv_group", "--compensation", "mean", "--dtype", "float32", "--out", out,
    )  # fmt: skip
    plan = load_plan(out)
    selection = plan.selection
    assert (selection.method, selection.stage, selection.seed, selection.protect_top) == ("random", "middle", 7, 5.0)
    assert (selection.remove, selection.text_only, len(selection.protected)) == (8, 8, 8)
    assert plan.granularity == "kv_group"
    assert plan.compensation.means is not None
    assert plan.compensation.means.shape == (8, 32)
    assert shown["kv_bytes_per_token"] == {"baseline": 24 * 2 * 32 * 4, "pruned": 22 * 2 * 32 * 4}
    # 96 of the 144 image tokens lie in blocks without text.
    assert shown["kv_bytes_per_image_token"] == {"baseline": 24 * 256, "pruned": 20 * 256 + ceil(2 * 256 * 48 / 144)}
    assert shown["ideal_concurrency"] == pytest.approx(24 * 7 / (20 * 7 + 2 * 4))
    assert not (grouped.parent / "plan.json").exists()


def test_a_grouped_query_model_is_planned_by_kv_head(grouped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers(capsys, grouped, "--remove", 4)
    plan = load_plan(grouped.parent / "plan.json")
    assert plan.granularity == "kv_group"
    assert plan.heads("removed") == [(11, 0), (11, 1), (11, 2), (11, 3)]


def test_tables_of_a_grouped_query_model_are_of_kv_groups(grouped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(grouped), "--remove", "4", "--text-only", "4"]) == 0
    printed = capsys.readouterr().out
    assert "KV groups of 4 query heads by stage" in printed
    assert "KV groups chosen by score" in printed
    (late,) = (line for line in printed.splitlines() if "late" in line.split())
    assert [cell for cell in late.split() if cell.isdigit()] == ["6", "1", "1"]
    assert main(["plan", "show", str(grouped.parent / "plan.json")]) == 0
    shown = capsys.readouterr().out
    assert "what becomes of each KV group (4 query heads), from left to right" in shown
    (last,) = (line for line in shown.splitlines() if line.startswith("        11 "))
    assert last.split()[1:] == [".t", "1", "text-only,", "1", "removed"]
    assert "10% of all KV groups with the highest score are protected" in " ".join(shown.split())
    assert main(["profile", "show", str(grouped), "--top", "3"]) == 0
    shown = capsys.readouterr().out
    assert "KV groups of 4 query heads from left to right" in shown
    assert "Highest KV groups" in shown
    assert "4-7" in shown
    assert main(["profile", "show", str(grouped), "--granularity", "query_head"]) == 0
    assert "Highest heads" in capsys.readouterr().out


def test_top_is_the_other_end(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers(capsys, profile, "--remove", 2, "--select", "top", "--protect-top", 0)
    assert load_plan(profile.parent / "plan.json").heads("removed") == [(8, 6), (8, 7)]


def test_an_empty_plan_has_to_be_asked_for(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = numbers(capsys, profile, "--remove", 0)
    plan = load_plan(profile.parent / "plan.json")
    assert len(plan.heads("full")) == plan.geometry.heads
    assert shown["ideal_concurrency"] == 1


def test_savings_are_those_of_an_image_of_any_size(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--text-only", 48, "--stage", "all", "--protect-top", 0)
    few, usual, many = (
        numbers(capsys, profile, *flags, *own) for own in (("--image-tokens", 40), (), ("--image-tokens", 2304))
    )
    assert [one["prompt"]["image_tokens"] for one in (few, usual, many)] == [40, 144, 2304]
    assert all(one["usual_prompt"]["image_tokens"] == 144 for one in (few, usual, many))
    plan = load_plan(profile.parent / "plan.json")
    assert plan.geometry.image_tokens == 144
    for shown, blocks, kept in ((few, 4, 4), (usual, 7, 4), (many, 75, 4)):
        assert shown["plan_digest"] == plan.digest  # the image is the user's, not the plan's
        # Half of the heads keep all blocks of 32, half what is not all image: 35 tokens of text stand before it.
        assert shown["ideal_concurrency"] == pytest.approx(2 * blocks / (blocks + kept))
        assert shown["concurrency"] == prompt_saving(plan, 32, image_tokens=shown["prompt"]["image_tokens"]).concurrency
    assert few["concurrency"] < usual["concurrency"] < many["concurrency"]
    path = str(profile.parent / "plan.json")
    assert main(["plan", "show", path, "--image-tokens", "2304", "--serve-on", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["concurrency"] == many["concurrency"]
    assert main(["plan", "show", path, "--image-tokens", "2304", "--serve-on", "cpu"]) == 0
    table = capsys.readouterr().out
    assert "2,304; the model's usual: 144" in table
    assert "prompts of 2,304 image + 70 text tokens" in table
    assert main(["plan", str(profile), "--remove", "8", "--image-tokens", "-1"]) == 2


def test_a_treatment_that_costs_more_than_it_saves_is_named(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(profile), "--text-only", "3", "--serve-on", "cpu", "--json"]) == 0
    with_few = capsys.readouterr()
    assert "as many prompts fit with the 3 text-only heads left full" in with_few.err
    assert "leave out --text-only" in with_few.err
    shown = json.loads(with_few.out)
    assert shown["concurrency"] <= 1
    assert shown["kv_cache_groups"] > 1
    assert main(["plan", str(profile), "--text-only", "50%", "--stage", "all", "--serve-on", "cpu", "--json"]) == 0
    with_many = capsys.readouterr()
    assert "left full" not in with_many.err
    assert json.loads(with_many.out)["concurrency"] > 1


def test_images_that_fill_no_block_are_named_with_what_helps_there(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for one cause, and no advice that the device refuses."""
    shares = ["--text-only", "50%", "--stage", "all", "--image-tokens"]
    for flags, helps in (
        (["40", "--serve-on", "cpu"], "KV block of 32 tokens; serve on NVIDIA GPUs (--serve-on cuda) or see with"),
        (["40", "--serve-on", "cpu", "--block-size", "64"], "of 64 tokens; give a smaller --block-size, or see with"),
        (["18", "--serve-on", "cuda"], "KV block of 16 tokens; see with --image-tokens what larger images save"),
    ):
        assert main(["plan", str(profile), *shares, *flags]) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "save nothing" in line or "left full" in line]
        assert len(said) == 1
        assert helps in said[0]


def test_nobody_is_told_to_treat_more_heads_than_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_profile(tmp_path / "profile.json", kv_heads=8)
    words = ["plan", str(path), "--stage", "all", "--protect-top", "0", "--serve-on", "cpu", "--image-tokens", "100"]
    assert main([*words, "--text-only", "1"]) == 0
    assert "or give it more heads" in capsys.readouterr().err
    assert main([*words, "--text-only", "100%"]) == 0
    assert "give it more heads" not in capsys.readouterr().err


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_profile(tmp_path / "profile.json", kv_heads=8, name="a/[bold]model")
    assert main(["plan", str(path), "--remove", "6", "--text-only", "3", "--serve-on", "cpu"]) == 0
    out, said = capsys.readouterr()
    rows = [[cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")] for line in out.splitlines()]
    assert ["stage", "full", "text-only", "removed"] in rows
    assert ["late", "23", "3", "6"] in rows
    assert ["all", "87", "3", "6"] in rows
    assert ["KV cache per text token", "12,288 to 11,520 bytes (-6.2%)"] in rows
    assert ["KV cache per image token", "12,288 to 11,264 bytes (-8.3%)"] in rows
    assert "What it saves on CPUs, in bfloat16 and KV blocks of 32 tokens" in out
    assert ["weights not loaded", "294,912 bytes"] in rows
    assert ["tokens of an image", "144, the model's usual"] in rows
    assert ["prompts of 144 image + 70 text tokens", "1.037 times as many fit"] in rows  # lanes are padded
    assert "a/[bold]model" in out
    assert f"vhserve: wrote {tmp_path / 'plan.json'}" in said


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ([], "no number of heads is given"),
        (["--remove", "33"], "stage late has 32"),
        (["--remove", "97", "--stage", "all"], "the model has 96"),
        (["--remove", "32", "--stage", "early"], "only 22 of the 32 in stage early are unprotected"),
        (["--remove", "96", "--stage", "all", "--protect-top", "0"], "removes every head"),
        (["--remove", "8", "--select", "top", "--stage", "all"], "give --protect-top 0"),
        (["--remove", "8", "--protect-top", "101"], "--protect-top"),
        (["--remove", "8", "--stage", "latest"], "--stage"),
        (["--remove", "some"], "--remove"),
        (["--text-only", "-4"], "--text-only"),
        (["--evict-3", "4"], "--evict-3"),
        (["--thinned-16", "4"], "--thinned-16"),
        (["--remove", "8", "--out", "missing/plan.json"], "missing/plan.json"),
        (["--remove", "8", "--out", "."], "cannot write ."),
        (["--remove", "8", "--out", "profile.json"], "this command reads it"),
        (["--remove", "8", "--compensation", "mean"], "no mean outputs"),
        (["--remove", "8", "--serve-on", "cpu", "--block-size", "48"], "give --block-size 64 or --serve-on cuda"),
        (["--remove", "8", "--serve-on", "cuda", "--block-size", "8"], "multiple of 16; give --block-size 16\n"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    args: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = write_profile(Path("profile.json"), kv_heads=8, means=False).read_bytes()
    assert main(["plan", "profile.json", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert part in captured.err
    assert captured.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]
    assert Path("profile.json").read_bytes() == raw


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: raw.replace(b'"score"', b'"scores"')])
def test_a_damaged_profile_is_named(damage: Any, profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile.write_bytes(damage(profile.read_bytes()))
    assert main(["plan", str(profile), "--remove", "8"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"{profile}: " in error
    assert "expected" in error
    assert not (profile.parent / "plan.json").exists()


def test_every_budget_of_a_treatment_has_a_flag() -> None:
    assert {one.budget for one in budgeted()} <= set(Plan.model_fields)
