"""Rankings against what heads are worth: with planted heads every ranking must beat chance."""

import json

import numpy as np
import pytest
import torch
from planted_model import HEADS, LAYERS, PLANTED, PlantedWorld, make_planted

from calibrate.ablation.tables import markdown
from calibrate.errors import OutOfDeviceMemory
from calibrate.masking import masked_runs
from calibrate.masking.masked_runs import MaskedRunSettings
from calibrate.masking.treatments import treated
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.batches import make_batch
from calibrate.models.loading import load_model
from calibrate.rankings.comparison import compare_rankings
from calibrate.rankings.correlations import tables_of
from calibrate.rankings.groups import HeadGroups, draw_groups
from calibrate.rankings.results import RankingComparison
from calibrate.rankings.tables import columns_of, correlation_grid, verdict
from calibrate.scoring.attention_rows import attention_rows
from calibrate.scoring.calibration import CalibrationSettings, calibrate
from profiles.errors import BudgetTooLarge
from profiles.planning.published_scores import read_scores, with_scores
from profiles.ranking import Ranking
from profiles.store import save
from vhserve.cli import main

SAMPLES = 16
GROUPS = HeadGroups(number=40, size=6, seed=3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return load_model(str(make_planted(tmp_path_factory.mktemp("planted"))), "float32", "cpu")


def hits(planted, samples):
    """SparseMM's score of every sample: 1 / |box| where the token that is attended to most lies in the box."""
    batch = make_batch(planted, samples)
    with attention_rows(planted) as read, torch.inference_mode():
        rows = torch.stack(read(batch).rows)  # (layers, batch, heads, n)
    box = batch.box[None, :, None, :].expand_as(rows)
    inside = box.gather(3, rows.argmax(-1, keepdim=True))[..., 0]
    return inside / batch.box.sum(1)[None, :, None]


@pytest.fixture(scope="module")
def profile(planted, tmp_path_factory):
    """Everything that heads can be ranked by; SparseMM's scores in a file as it publishes them."""
    folder = tmp_path_factory.mktemp("profile")
    world = PlantedWorld(SAMPLES)
    run = CalibrationSettings(folder / "profile.json", effects=True, show_progress=False)
    made = calibrate(planted, world, run)
    found = hits(planted, list(world))
    fields = {f"{i}-{j}": found[i, :, j].tolist() for i in range(LAYERS) for j in range(HEADS)}
    (folder / "sparsemm.json").write_text(json.dumps(fields))
    gates = np.random.default_rng(0).random((LAYERS, HEADS)) / 2
    gates[tuple(zip(*PLANTED, strict=True))] = 1.0  # as training them would: 1 where the image is needed
    np.savetxt(folder / "gates.tsv", gates, delimiter="\t")
    made = with_scores(made, "sparsemm", read_scores(folder / "sparsemm.json", "sparsemm", planted.geometry))
    return with_scores(made, "duo_attention", read_scores(folder / "gates.tsv", "duo_attention", planted.geometry))


@pytest.fixture(scope="module")
def result(planted, profile, tmp_path_factory):
    out = tmp_path_factory.mktemp("rankings") / "rankings.json"
    run = MaskedRunSettings(out, show_progress=False)
    found = compare_rankings(planted, profile, PlantedWorld(SAMPLES, seed=1), "removed", GROUPS, run)
    assert RankingComparison.model_validate_json(out.read_text()) == found
    assert list(out.parent.iterdir()) == [out]
    return found


def test_heads_cost_what_a_full_pass_says(planted, result):
    samples = list(PlantedWorld(SAMPLES, seed=1))
    batch = make_batch(planted, samples)
    tokens = torch.tensor([planted.processor.tokenizer.convert_tokens_to_ids(one.answer) for one in samples])

    def odds():
        p = next_token_logits(planted, batch).double().softmax(-1)[torch.arange(SAMPLES), tokens]
        return (p / (1 - p)).log()

    whole = odds()
    for taken in [*result.heads, *result.groups[:3]]:
        rows = [["removed" if [i, j] in taken.heads else "full" for j in range(HEADS)] for i in range(LAYERS)]
        with treated(planted.model, rows):
            assert taken.log_odds == pytest.approx(float((whole - odds()).mean()), abs=2e-4)
    lost = {tuple(one.heads[0]): one.accuracy for one in result.heads}
    assert lost == {head: 0.5 if head in PLANTED else 0.0 for head in lost}
    assert [one.heads for one in result.groups] == [
        [list(head) for head in heads] for heads in draw_groups(planted.geometry, GROUPS)
    ]


def test_every_ranking_beats_random(result):
    assert result.absent == {}
    assert len(result.rankings) == 9  # all that `--rank-by` takes, and the gradient as Michel et al. rank by it
    for name in result.rankings:
        of = {(one.kind, one.outcome): one for one in result.correlations if one.ranking == name}
        assert list(of) == columns_of(result)
        for column in (("head", "accuracy"), ("group", "log_odds"), ("group", "accuracy")):
            assert 0 < of[column].low < of[column].high
            if name == "gradient_by_layer" and column == ("group", "log_odds"):
                continue  # scaled by layer, heads of layers without a planted one rank as high as those that are
            assert of[column].beats_random, (name, column, of[column].rho)
    # Taking one of thirty heads away changes nothing but for the planted three, so that ranks of log-odds are noise.
    for one in result.random:
        assert one.low < 0 < one.high


def test_a_ranking_that_knows_nothing_does_not_beat_random(planted, profile, tmp_path):
    rng = np.random.default_rng(8)
    unknowing = rng.permutation(np.linspace(0, 1, LAYERS * HEADS)).reshape(LAYERS, HEADS)
    for head in PLANTED:
        unknowing[head] = 0.5  # neither liked nor disliked
    blind = profile.model_copy(update={"rankings": profile.rankings | {"score": Ranking.of(unknowing)}})
    run = MaskedRunSettings(tmp_path / "rankings.json", show_progress=False)
    found = compare_rankings(planted, blind, PlantedWorld(SAMPLES, seed=1), "removed", HeadGroups(20, 6, 3), run)
    (score,) = (
        one for one in found.correlations if (one.ranking, one.kind, one.outcome) == ("score", "head", "accuracy")
    )
    assert not score.beats_random
    assert score.behind_best > 0.3


def test_a_full_device_is_a_mistake_to_mend(planted, profile, tmp_path, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(masked_runs, "make_answered_batch", full)
    run = MaskedRunSettings(tmp_path / "rankings.json", show_progress=False)
    with pytest.raises(OutOfDeviceMemory, match="--batch-size 4, which continues"):
        compare_rankings(planted, profile, PlantedWorld(SAMPLES, seed=1), "removed", HeadGroups(20, 6, 3), run)


def test_the_table_and_the_verdict_say_what_was_found(result):
    grid = correlation_grid(result)
    text = markdown(grid)
    assert [row[0] for row in grid.rows][-1] == ["random"]
    assert len(grid.rows) == len(result.rankings) + 1
    assert "30 heads, log-odds" in text
    assert "40 groups of 6, accuracy" in text
    best = max(
        (one for one in result.correlations if (one.kind, one.outcome) == columns_of(result)[0]),
        key=lambda one: one.rho,
    )
    assert verdict(result).startswith("Best by single heads' log-odds: ")
    assert f"rho {best.rho:+.2f}" in verdict(result)


def test_text_only_compares_the_effects_of_text_only(planted, profile):
    tables, _ = tables_of(profile, "text_only")
    np.testing.assert_allclose(tables["effect"], profile.rankings["effect"].tables["text_only"])
    norms = np.linalg.norm(tables["gradient_by_layer"], axis=1)
    np.testing.assert_allclose(norms, 1)
    with pytest.raises(BudgetTooLarge, match="30"):
        draw_groups(planted.geometry, HeadGroups(size=30))


def test_the_command(llava, tmp_path, capsys):
    from profile_factories import profile_of

    path, out = tmp_path / "profile.json", tmp_path / "rankings.json"
    save(profile_of(llava), path)
    flags = ["rankings", str(path), "--samples", "3", "--groups", "4", "--group-size", "5", "--out", str(out)]
    assert main([*flags, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.read_text())
    geometry = llava.geometry
    assert geometry.group_size > 1
    groups = [[[layer, head] for head in geometry.group(kv)] for layer in range(geometry.layers) for kv in range(2)]
    assert [one["heads"] for one in document["heads"]] == groups
    assert all(len(one["heads"]) == 5 * geometry.group_size for one in document["groups"])
    assert {one["kind"] for one in document["correlations"]} == {"kv_group", "group"}
    assert document["rankings"] == ["score", "image_weight", "concentration"]
    assert "effect" in document["absent"]
    assert main([*flags, "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert "| score (the paper's) |" in printed
    assert "| 8 KV groups, log-odds |" in printed
    assert "4 sets of 5 KV groups, accuracy" in printed
    # Before a model is looked for.
    assert main([*flags, "--group-size", "8", "--model", "no-such-model"]) == 2
    assert "groups have 8 KV groups, but the model has 8" in capsys.readouterr().err
    for few in ("1", "2"):
        assert main([*flags, "--groups", few, "--model", "no-such-model"]) == 2
        assert f"--groups is {few}" in capsys.readouterr().err
