"""The analysis of a model whose heads were planted, so that what it must find is known."""

import numpy as np
import pytest
import torch
from analysis_runs import Reversed, folder_of, run
from planted_model import COLOURS, LAYERS, PLANTED, PlantedWorld, make_planted

from calibrate.ablation.results import Ablation
from calibrate.analysis.ablating import head_profile, run_ablation
from calibrate.analysis.accuracy_section import accuracy_section, answers_count
from calibrate.analysis.concatenated import ConcatenatedDataset
from calibrate.analysis.heads import top_section
from calibrate.analysis.lens import settled
from calibrate.analysis.report import make_report
from calibrate.analysis.tallies import Measured
from calibrate.datasets import Dataset
from calibrate.models.loading import LoadedModel, load_model


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(make_planted(tmp_path_factory.mktemp("planted"))), "float32", "cpu")


@pytest.fixture(scope="module")
def planted_run(planted, tmp_path_factory) -> tuple[Dataset, Measured]:
    given = PlantedWorld(48)
    return given, run(planted, given, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def planted_ablation(planted, planted_run, tmp_path_factory) -> Ablation:
    given, measured = planted_run
    profile = head_profile(planted, given, measured)
    out = tmp_path_factory.mktemp("ablation") / "ablation.json"
    return run_ablation(planted, profile, PlantedWorld(16), out, ["1", "3"], draws=2, batch_size=8)


def test_the_lens_finds_where_planted_bits_come_together(planted_run):
    """Of colours that fit equally well the first is guessed, so each colour settles where its last set bit comes in."""
    where = settled(torch.from_numpy(planted_run[1].ranks()))
    layers = {bit: layer for (layer, _), bit in PLANTED.items()}
    expected = torch.tensor([0.0] * LAYERS, dtype=torch.float64)
    for colour in range(len(COLOURS)):
        expected[layers[colour.bit_length() - 1] if colour else 0] += 1 / len(COLOURS)
    assert [(where == layer).double().mean().item() for layer in range(LAYERS)] == expected.tolist()


def test_the_report_of_the_planted_model(planted, planted_run, planted_ablation):
    given, measured = planted_run
    report = make_report(planted, given, measured, ablation=planted_ablation)
    sections = {section.name: section for section in report.sections}
    top = [row for row in sections["top-heads"].rows if row["rank_in_stage"] == 1]
    assert {(row["layer"], row["head"]) for row in top} == set(PLANTED)
    assert all(row["box_weight"] > 0.9 for row in top)
    (accuracy, *_) = sections["accuracy"].rows
    assert (accuracy["family"], accuracy["accuracy"], accuracy["among_options"]) == ("all", 1, 1)
    ablation = {(row["category"], row.get("family")): row for row in sections["ablation"].rows}
    for stage in ("early", "middle", "late"):
        assert ablation[f"{stage} top 1", "all"]["difference"] == -0.5
        assert ablation[f"{stage} top 1", "all"]["significant"]
    assert ablation["late bottom 3", "all"]["difference"] == 0
    assert not ablation["late bottom 3", "all"]["significant"]
    assert "drawn-box" not in sections
    verdicts = {finding.title: finding.verdict for finding in report.findings}
    assert verdicts["Visual heads are a model family's own"] == "not measured"


def test_top_heads_of_a_grouped_query_model_are_kv_groups(planted_run):
    """The means of what is shown of single heads."""
    _, measured = planted_run
    heads, groups = top_section(measured), top_section(measured, 5)
    assert (heads.title, groups.title) == ("Top heads of each stage", "Top KV groups of each stage")
    assert groups.table.header[:4] == ["stage", "layer", "group", "heads"]
    single = {(row["layer"], row["head"]): row for row in heads.rows}
    assert len(groups.rows) == len(single) / 5
    for row in groups.rows:
        own = [single[row["layer"], head] for head in range(5)]
        for name in ("score", "image_weight", "concentration", "box_weight"):
            assert row[name] == pytest.approx(sum(one[name] for one in own) / 5)
        assert row["kv_group"] == 0
    assert [cell for (cell,) in groups.table.rows[0]][2:4] == ["0", "0-4"]


def test_several_datasets_are_kept_apart(planted, tmp_path):
    concatenated = ConcatenatedDataset([PlantedWorld(10), Renamed(PlantedWorld(7, seed=1))])
    assert len(concatenated) == 17
    measured = run(planted, concatenated, tmp_path)
    assert measured.families == ["planted/plain", "planted/please", "other/plain", "other/please"]
    alone = run(planted, PlantedWorld(7, seed=1), folder_of(tmp_path, "alone"))
    for family in alone.families:
        found, expected = measured.means(f"other/{family}"), alone.means(family)
        np.testing.assert_allclose(found.image_weight, expected.image_weight, atol=1e-6)
    assert concatenated.ref().name == "planted,other"


class Renamed(Reversed):
    def __init__(self, other: Dataset) -> None:
        super().__init__(other)
        self.name = "other"


class Mute(PlantedWorld):
    """Asks for answers that the model never gives, and shows no box."""

    def read(self, index):
        from dataclasses import replace

        return replace(super().read(index), options=("tell", "me"), answer="tell", box=None)


def test_answers_that_are_no_options_are_reported_as_such(planted, tmp_path):
    given = Mute(6)
    measured = run(planted, given, tmp_path)
    assert not answers_count(measured)
    section = accuracy_section(measured)
    assert all(row["accuracy"] is None and row["among_options"] == 0 for row in section.rows)
    assert "none of 3 answers is one of the question's options" in section.statements[0]
    report = make_report(planted, given, measured)
    assert report.findings[-1].verdict == "not measured"
    rows = next(section for section in report.sections if section.name == "attention").rows
    assert all(row["box_weight"] is None for row in rows)
    assert any("No box weight" in words for section in report.sections for words in section.statements)


def test_an_earlier_ablation_of_the_same_heads_is_taken(planted, planted_run, tmp_path):
    given, measured = planted_run
    profile = head_profile(planted, given, measured)
    out = tmp_path / "ablation.json"
    first = run_ablation(planted, profile, PlantedWorld(4), out, ["1"], draws=1, batch_size=4)
    written = out.stat().st_mtime_ns
    assert run_ablation(planted, profile, PlantedWorld(4), out, ["1"], draws=1, batch_size=4) == first
    assert out.stat().st_mtime_ns == written
    assert len(run_ablation(planted, profile, PlantedWorld(4), out, ["2"], draws=1, batch_size=4).rows[0].heads) == 2
