"""`vhserve profile` as a user meets it: maps, comparisons and imports, and one line for each mistake."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from result_factories import GEOMETRY, grouped_profile, profile
from rich.console import Console
from scipy.stats import pearsonr, spearmanr

from profiles.planning.rankings import group_ranking
from profiles.ranking import Ranking
from profiles.store import load_profile, save
from vhserve.cli import main
from vhserve.report.profile_comparison import difference_map
from vhserve.report.profile_views import head_map

SHAPE = (GEOMETRY.layers, GEOMETRY.query_heads)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    save(profile(), path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another profile of the same model, with scores drawn anew."""
    rows = np.random.default_rng(4).random(SHAPE).round(1).tolist()  # with ties
    rankings = dict.fromkeys(("image_weight", "concentration", "score"), Ranking.of(rows))
    path = tmp_path / "other.json"
    save(profile().model_copy(update={"rankings": rankings}), path)
    return path


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["profile", *map(str, args)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1
    return told.err


def test_show_draws_a_row_for_each_layer(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "show", str(saved), "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "score, 17 samples" in lines[0]
    rows = [line for line in lines if re.match(r"^ *(early|middle|late)? +\d+ ", line)]
    assert len(rows) == GEOMETRY.layers
    assert rows[0].startswith(" early   0 @@")  # the highest score
    assert sum("\N{BOX DRAWINGS LIGHT VERTICAL}" in line for line in lines) == 3
    assert main(["profile", "show", str(saved), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["values"] == profile().scores().tolist()
    assert document["stage_means"]["early"] == pytest.approx(np.mean(profile().scores()[:2]))


def test_maps_are_in_colour_and_say_the_same_without() -> None:
    console = Console(force_terminal=True, color_system="truecolor", width=80)
    values = np.arange(12.0).reshape(3, 4)
    with console.capture() as caught:
        console.print(head_map(values, "title"))
    text = caught.get()
    assert "48;2;253;231;37" in text  # the highest, in viridis' yellow
    assert "48;2;68;1;84" in text
    assert head_map(values, "title", numbers=True).plain.count("100") == 1
    assert head_map(np.zeros((3, 4)), "nothing").plain.count("\n") == 5
    moved = difference_map(values, values[::-1].copy()).plain.splitlines()
    assert moved[1].endswith("########")
    assert moved[3].endswith("--------")
    assert set(moved[2].split(" 1 ")[1]) <= set(" ")


def test_diff_is_scipy_s_correlation(saved: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "diff", str(saved), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = (load_profile(path).scores() for path in (saved, other))
    assert found["spearman"] == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)
    assert found["pearson"] == pytest.approx(pearsonr(first.ravel(), second.ravel()).statistic)
    assert found["by_stage"]["late"] == pytest.approx(spearmanr(first[4:].ravel(), second[4:].ravel()).statistic)
    highest = [set(np.argsort(-one, axis=None, kind="stable")[:10]) for one in (first, second)]
    assert found["common"] == len(highest[0] & highest[1])
    for one in found["moved"]:
        assert one["values"] == [first[tuple(one["head"])], second[tuple(one["head"])]]
    assert main(["profile", "diff", str(saved), str(saved)]) == 0
    same = " ".join(capsys.readouterr().out.split())
    assert "Spearman +1.000" in same
    assert same.endswith("in common; none has moved"), "and no table of nothing"


def test_diff_of_a_grouped_query_model_compares_kv_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By what was measured of groups, which here rank otherwise than their heads."""
    path = tmp_path / "grouped.json"
    save(grouped_profile(), path)
    flags = ["profile", "diff", str(path), str(path), "--table", "effect", "--second-table", "score"]
    assert main([*flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    effects, scores = group_ranking(grouped_profile(), "effect"), profile().scores().reshape(6, 2, 2).mean(2)
    assert (found["heads"], found["heads_together"]) == (12, 2)
    assert found["spearman"] == pytest.approx(spearmanr(effects.ravel(), scores.ravel()).statistic)
    assert all(one["values"] == [effects[tuple(one["head"])], scores[tuple(one["head"])]] for one in found["moved"])
    assert main(flags) == 0
    shown = capsys.readouterr().out
    assert "KV groups of 2 query heads from left to right" in shown
    assert "n = 12 KV groups" in " ".join(shown.split())
    layer, group = found["moved"][0]["head"]
    assert re.search(rf"│ +{layer} │ +{group} │ +{2 * group}-{2 * group + 1} │", shown)
    assert main([*flags, "--json", "--granularity", "query_head"]) == 0
    heads = json.loads(capsys.readouterr().out)
    assert (heads["heads"], heads["heads_together"]) == (24, 1)
    assert heads["spearman"] == pytest.approx(1)


def test_import_adds_scores_to_rank_by(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, out = tmp_path / "llava.json", tmp_path / "with.json"
    values = np.random.default_rng(1).random(SHAPE)
    scores.write_text(json.dumps({f"{i}-{j}": [values[i, j], 0.0] for i, j in np.ndindex(*SHAPE)}))
    before = saved.read_bytes()
    assert main(["profile", "import", str(saved), str(scores), "--out", str(out)]) == 0
    assert "--rank-by sparsemm" in capsys.readouterr().out
    assert saved.read_bytes() == before
    np.testing.assert_allclose(load_profile(out).rankings["sparsemm"].tables["all"], values / 2)
    plan = tmp_path / "plan.json"
    flags = ["plan", str(out), "--remove", "1", "--stage", "all", "--rank-by", "sparsemm", "--out", str(plan)]
    assert main(flags) == 0
    least = np.unravel_index(values.argmin(), SHAPE)
    assert json.loads(plan.read_text())["treatments"][least[0]][least[1]] == "removed"
    np.savetxt(tmp_path / "full_attention_heads.tsv", values, delimiter="\t")
    assert main(["profile", "import", str(out), str(tmp_path / "full_attention_heads.tsv")]) == 0
    found = load_profile(out).rankings
    assert (found["duo_attention"].source, found["sparsemm"].source) == ("full_attention_heads.tsv", "llava.json")
    capsys.readouterr()
    assert main(["profile", "diff", str(out), str(out), "--table", "sparsemm", "--second-table", "duo_attention"]) == 0


def test_mistakes_are_one_line(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = tmp_path / "scores.json"
    scores.write_text('{"0-0": [1], "0-9": [2]}')
    assert "scores.json: field '0-9' is no head" in refused(capsys, "import", saved, scores)
    before = saved.read_bytes()
    scores.rename(tmp_path / "scores.txt")
    assert "--kind" in refused(capsys, "import", saved, tmp_path / "scores.txt")
    assert "field '0-9'" in refused(capsys, "import", saved, tmp_path / "scores.txt", "--kind", "sparsemm")
    assert saved.read_bytes() == before
    assert "profile import" in refused(capsys, "show", saved, "--table", "sparsemm")
    assert "--no-effects" in refused(capsys, "diff", saved, saved, "--table", "effect")
    assert "has no ranking 'bogus'; expected score" in refused(capsys, "show", saved, "--table", "bogus")
    assert "what it has: score, image_weight" in refused(capsys, "show", saved, "--table", "gradient")
    small = profile().model_copy(
        update={
            "geometry": GEOMETRY.model_copy(update={"layers": 1}),
            "rankings": {"score": Ranking.of([[0.5] * 4])},
        }
    )
    save(small, tmp_path / "small.json")
    assert "has 1 layers of 4 heads" in refused(capsys, "diff", saved, tmp_path / "small.json")
