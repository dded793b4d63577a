"""The recipe "A head scorer" of CONTRIBUTING.md, followed: one class, one registration, and every command has it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from calibrate.scoring.scorers import SCORERS, register
from calibrate.scoring.scorers.base import RowScorer
from calibrate.scoring.scorers.image_weight import ImageWeight, attention_on
from profiles.planning.rankings import ranking
from profiles.store import load_plan, load_profile
from vhserve.cli import main

RANKINGS_PAGE = Path(__file__).parents[3] / "docs" / "rankings.md"


class TextWeight(RowScorer):
    """Share of attention outside the image, 0 to 1; lower means keep."""

    name = "text_weight"
    direction = "lower"

    def layer_values(self, layer):
        return attention_on(layer.row, ~layer.image)


@pytest.fixture(scope="module")
def profile(llava_path, tmp_path_factory):
    """A profile that `vhserve calibrate` has written with the new scorer registered; it is no longer, afterwards."""
    path = tmp_path_factory.mktemp("new") / "profile.json"
    register(TextWeight())
    try:
        flags = ["--model", str(llava_path), "--samples", "5", "--device", "cpu", "--dtype", "float32", "--no-effects"]
        assert main(["calibrate", *flags, "--out", str(path)]) == 0
    finally:
        del SCORERS["text_weight"]
    return path


def test_the_profile_holds_it_and_higher_means_keep(profile):
    found = load_profile(profile)
    assert set(found.rankings) == {"score", "image_weight", "concentration", "box_weight", "text_weight"}
    table = ranking(found, "text_weight")
    # What is not on the image is on the text: less of it is more of the other.
    np.testing.assert_allclose(table, ranking(found, "image_weight") - 1, atol=1e-6)
    assert table.std() > 1e-4


def test_plans_rank_by_it(profile, tmp_path):
    plans = {}
    for name in ("text_weight", "image_weight", "score"):
        out = tmp_path / f"{name}.json"
        flags = ["--remove", "4", "--stage", "all", "--granularity", "query_head", "--rank-by", name]
        assert main(["plan", str(profile), *flags, "--out", str(out)]) == 0
        plans[name] = load_plan(out)
    assert plans["text_weight"].selection.rank_by == "text_weight"
    assert plans["text_weight"].treatments == plans["image_weight"].treatments != plans["score"].treatments


def test_profile_and_rankings_show_it(profile, llava_path, tmp_path, capsys):
    assert main(["profile", "show", str(profile), "--table", "text_weight"]) == 0
    assert "text weight, 5 samples" in capsys.readouterr().out
    flags = ["--samples", "3", "--groups", "4", "--group-size", "3", "--device", "cpu"]
    assert main(["rankings", str(profile), *flags, "--out", str(tmp_path / "rankings.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rankings"] == ["score", "image_weight", "concentration", "box_weight", "text_weight"]
    of = {(one["ranking"], one["kind"], one["outcome"]): one["rho"] for one in document["correlations"]}
    assert of["text_weight", "kv_group", "log_odds"] == pytest.approx(of["image_weight", "kv_group", "log_odds"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "score"}, "taken"),
        ({"name": "Text weight"}, "no name"),
        ({"tables": ()}, "neither all alone"),
        ({"tables": ("all", "removed")}, "neither all alone"),
        ({"tables": ("evicted",)}, "neither all alone"),
    ],
)
def test_what_cannot_be_registered(changes, words):
    before = dict(SCORERS)
    with pytest.raises(ValueError, match=words):
        register(type("Wrong", (ImageWeight,), {"name": "wrong"} | changes)())
    assert before == SCORERS


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_has_its_row_in_the_docs(name):
    assert re.search(rf"^\|[^|]*`{name}`", RANKINGS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
