"""The analysis' pass over real, tiny models: every kind of model, the logit lens' own reference, batches, resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_model import COLOURS, LAYERS, PLANTED, PlantedWorld, make_planted
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    Phi3Config,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from calibrate.ablation.results import Ablation
from calibrate.analysis.ablating import head_profile, run_ablation
from calibrate.analysis.accuracy_section import accuracy_section, answers_count
from calibrate.analysis.concatenated import ConcatenatedDataset
from calibrate.analysis.heads import top_section
from calibrate.analysis.lens import logit_lens, settled
from calibrate.analysis.measure import analysis_loop, measure
from calibrate.analysis.report import make_report
from calibrate.analysis.tallies import TABLES, Measured
from calibrate.datasets import Dataset, open_dataset
from calibrate.errors import StateMismatch
from calibrate.models.batches import make_batch
from calibrate.models.loading import LoadedModel, load_model
from calibrate.runs.settings import RunSettings
from calibrate.scoring.attention_rows import attention_rows

SAMPLES = 18


def dataset(samples=SAMPLES):
    return open_dataset("synthetic", samples=samples, seed=3)


def run(loaded, given, folder, **settings) -> Measured:
    loop = analysis_loop(loaded, given, RunSettings(folder / "analysis.json", show_progress=False, **settings))
    return measure(loop)


def folder_of(path: Path, name: str) -> Path:
    (path / name).mkdir()
    return path / name


def same(a: Measured, b: Measured) -> None:
    """The same to float error, whatever the order of samples."""
    assert sorted(a.families) == sorted(b.families)
    for family in a.families:
        one, other = a.means(family), b.means(family)
        assert (one.samples, one.with_box) == (other.samples, other.with_box)
        for name in (*TABLES, "score"):
            x, y = getattr(one, name), getattr(other, name)
            assert (x is None) == (y is None)
            if x is not None:
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)
        assert sorted(map(tuple, a.ranks(family))) == sorted(map(tuple, b.ranks(family)))


class Reversed(Dataset):
    """Another dataset's samples, the last first."""

    def __init__(self, other: Dataset) -> None:
        super().__init__(other.name)
        self._other = other

    def ref(self):
        return self._other.ref()

    def __len__(self):
        return len(self._other)

    def read(self, index):
        return self._other.read(len(self) - 1 - index)


@torch.inference_mode()
def test_the_lens_against_all_hidden_states(model):
    samples = list(dataset(5))
    batch = make_batch(model, samples)
    assert (~batch.valid).any(), "no sample was padded"
    with attention_rows(model) as rows_of, logit_lens(model) as read:
        found, rows = read(batch, rows_of)
    assert len(rows.rows) == model.geometry.layers
    output = model.model(**batch.inputs, use_cache=False, output_hidden_states=True)
    # transformers gives what the embedding and each layer put out, the last one already behind the final norm.
    states = [state[torch.arange(5), batch.last] for state in output.hidden_states[1:]]
    norm, head = model.language_model.norm, model.model.lm_head
    logits = [head(norm(state)) for state in states[:-1]] + [head(states[-1])]
    assert found.tokens.tolist() == output.logits[torch.arange(5), batch.last].argmax(-1).tolist()
    for layer, of_layer in enumerate(logits):
        for sample, token in enumerate(found.tokens.tolist()):
            order = of_layer[sample].argsort(descending=True, stable=True).tolist()
            assert abs(found.ranks[sample, layer].item() - (order.index(token) + 1)) <= 1  # a tie in float error
    assert (found.ranks[:, -1] == 1).all()
    assert (found.ranks > 1).any(), "every layer says the same, so that nothing was tested"


def test_the_lens_leaves_nothing_behind(llava):
    layers = llava.model.model.language_model.layers
    before = [len(layer._forward_hooks) for layer in layers]
    with logit_lens(llava):
        assert [len(layer._forward_hooks) for layer in layers] == [hooks + 1 for hooks in before]
    assert [len(layer._forward_hooks) for layer in layers] == before


def test_batches_and_order_change_nothing(model, tmp_path):
    one = run(model, dataset(), folder_of(tmp_path, "a"), batch_size=5)
    same(one, run(model, dataset(), folder_of(tmp_path, "b"), batch_size=1))
    same(one, run(model, Reversed(dataset()), folder_of(tmp_path, "c"), batch_size=7))


def _decoder(kind, **sizes):
    shared = {
        "hidden_size": 240,
        "intermediate_size": 136,
        "num_hidden_layers": 3,
        "vocab_size": 400,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }
    return kind(**shared, **sizes)


FAMILIES = {
    "LLaVA-1.5": (LlavaConfig, LlavaForConditionalGeneration, LlamaConfig, 6, 6),
    "LLaVA-1.6 Vicuna": (LlavaNextConfig, LlavaNextForConditionalGeneration, LlamaConfig, 6, 6),
    "LLaVA-1.6 Mistral": (LlavaNextConfig, LlavaNextForConditionalGeneration, MistralConfig, 8, 2),
    "ViP-LLaVA Vicuna": (VipLlavaConfig, VipLlavaForConditionalGeneration, LlamaConfig, 6, 6),
    "ViP-LLaVA Llama-3": (VipLlavaConfig, VipLlavaForConditionalGeneration, LlamaConfig, 8, 2),
    "ViP-LLaVA Phi-3": (VipLlavaConfig, VipLlavaForConditionalGeneration, Phi3Config, 6, 6),
}
"""The paper's families: configuration, class, decoder, query and KV heads; the last two are not in transformers' format
on the Hub, but would be these classes."""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_the_paper_is_analysed(family, llava, llava_next, tmp_path):
    """Scaled down, with random weights; pictures of LLaVA-1.6 have different numbers of tokens."""
    config_kind, model_kind, decoder, heads, kv_heads = FAMILIES[family]
    pattern = llava_next if config_kind is LlavaNextConfig else llava
    text = _decoder(decoder, num_attention_heads=heads, num_key_value_heads=kv_heads)
    more = {"image_grid_pinpoints": pattern.model.config.image_grid_pinpoints} if pattern is llava_next else {}
    if config_kind is VipLlavaConfig:
        more = {"vision_feature_layers": [-2, 1]}
    config = config_kind(
        vision_config=pattern.model.config.vision_config,
        text_config=text,
        image_token_index=pattern.model.config.image_token_id,
        **more,
    )
    torch.manual_seed(0)
    model = model_kind(config)
    for weight in model.parameters():
        weight.data *= 3 if weight.ndim > 1 else 1
    model.save_pretrained(tmp_path / "model")
    pattern.processor.save_pretrained(tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"), "float32", "cpu")
    samples = 8
    given = open_dataset("synthetic", samples=samples, seed=3, families=["general", "general_box"])
    if pattern is llava_next:
        given = Wide(given)
    found = run(loaded, given, tmp_path, batch_size=4)
    means = found.means()
    assert means.samples == samples
    assert means.image_weight.shape == (3, heads)
    assert 0 < means.image_weight.min() <= means.image_weight.max() <= 1 + 1e-6
    assert means.box_weight is not None
    assert np.ptp(means.image_weight) > 1e-4
    report = make_report(loaded, given, found)
    assert len(report.findings) == 6
    assert report.document()


class Wide(Reversed):
    """Every other picture twice as wide as high, with its box where it was."""

    def read(self, index):
        from dataclasses import replace

        sample = super().read(index)
        if index % 2:
            return sample
        picture = sample.image.resize((2 * sample.image.width, sample.image.height))
        box = None if sample.box is None else (2 * sample.box[0], sample.box[1], 2 * sample.box[2], sample.box[3])
        return replace(sample, image=picture, box=box)


class Failing(Reversed):
    """A dataset that breaks off once, at one sample."""

    left = 1

    def read(self, index):
        if index == 11 and self.left:
            self.left = 0
            raise KeyboardInterrupt
        return super().read(index)


def test_an_interrupted_run_goes_on_to_the_same_numbers(llava, tmp_path):
    whole = run(llava, Reversed(dataset()), folder_of(tmp_path, "whole"), batch_size=4)
    folder = tmp_path
    given = Failing(dataset())
    with pytest.raises(KeyboardInterrupt):
        run(llava, given, folder, batch_size=4)
    state = folder / "analysis.json.partial"
    assert state.exists()
    again = run(llava, given, folder, batch_size=4)
    same(whole, again)
    assert again.families == whole.families
    np.testing.assert_array_equal(again.tally.arrays["ranks"], whole.tally.arrays["ranks"])
    # A finished state is taken as it is, for what comes after may be stopped too; one of other samples is refused.
    same(whole, run(llava, given, folder, batch_size=4))
    with pytest.raises(StateMismatch, match="samples was 18, is now 4"):
        run(llava, dataset(4), folder)


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
