"""The ablation against the slow way: every configuration by full forward passes of its own."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from profile_factories import profile_of

from calibrate.ablation.figure import accuracy_curve
from calibrate.ablation.plans import SHORT_CURVE, TABLE, configurations
from calibrate.ablation.results import Ablation, compared, figures
from calibrate.ablation.run import ablate
from calibrate.ablation.tables import drawn, family_grid, markdown, share_grid, stage_grid
from calibrate.ablation.treatments import ABLATION_TREATMENTS
from calibrate.datasets import Dataset, Sample, open_dataset
from calibrate.errors import OutOfDeviceMemory, StateMismatch
from calibrate.masking import masked_runs
from calibrate.masking.cached_forward import CachedForward
from calibrate.masking.masked_runs import MaskedRunSettings
from calibrate.masking.treatments import plan_treated, treated
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.batches import make_answered_batch, make_batch
from calibrate.runs.interrupts import Stopped
from calibrate.stats.intervals import difference_interval, wilson
from calibrate.stats.paired_tests import mcnemar_exact
from profiles.errors import BudgetTooLarge, WrongValue
from profiles.geometry import stage_layers
from profiles.head_profile import DatasetRef

SAMPLES = 15


class HalfRight(Dataset):
    """Synthetic questions, every other one with the answer that the unmasked model gives."""

    def __init__(self, loaded, samples):
        super().__init__("half right")
        self._samples = []
        for i, one in enumerate(open_dataset("synthetic", samples=samples, seed=7)):
            token = next_token_logits(loaded, make_batch(loaded, [one])).argmax(-1)
            said = loaded.processor.tokenizer.decode(token.tolist())
            answer, other = (said, one.answer) if i % 2 else (one.answer, said)
            self._samples.append(Sample(one.id, one.image, one.question, answer, one.family, (answer, other)))

    def ref(self):
        return DatasetRef(name=self.name, digest=None, split=None, settings={"samples": len(self)})

    def __len__(self):
        return len(self._samples)

    def read(self, index):
        return self._samples[index]


def chosen_for(profile, ks=(3, 6), draws=2):
    return configurations(profile, [str(k) for k in ks], draws=draws, seed=5, granularity="kv_group")


@pytest.fixture(scope="module")
def dataset(llava):
    return HalfRight(llava, SAMPLES)


@pytest.fixture(scope="module")
def profile(llava):
    return profile_of(llava)


@pytest.fixture(scope="module")
def whole(llava, profile, dataset, tmp_path_factory):
    """An uninterrupted run, and the file that it wrote."""
    out = tmp_path_factory.mktemp("whole") / "ablation.json"
    chosen = chosen_for(profile)
    return ablate(llava, profile, dataset, chosen, MaskedRunSettings(out, batch_size=6, show_progress=False)), out


def test_configurations_are_the_rows_of_the_table(profile):
    chosen = chosen_for(profile)
    layers, scores = profile.geometry.layers, profile.scores()
    assert len(TABLE.rows) == 12
    others = [one for one in chosen if one.select == "others"]
    # Early and middle have six heads, late has twelve: six others are only there.
    assert {(one.stage, one.k) for one in others} == {("early", 3), ("middle", 3), ("late", 3), ("late", 6)}
    assert len(chosen) == 3 * 2 * (1 + 1 + 2) + 4 * 2  # random ones twice
    for one in others:
        (top,) = (c for c in chosen if (c.select, c.stage, c.k) == ("top", one.stage, one.k))
        assert not set(one.heads) & set(top.heads)
    for one in chosen:
        assert len(one.heads) == one.k
        assert {layer for layer, _ in one.heads} <= set(stage_layers(one.stage, layers))
    top, bottom = (next(c for c in chosen if (c.select, c.stage) == (s, "late")) for s in ("top", "bottom"))
    assert np.mean([scores[head] for head in top.heads]) > np.mean([scores[head] for head in bottom.heads])
    draws = [one.heads for one in chosen if one.select in ("random", "others")]
    assert draws == [one.heads for one in chosen_for(profile) if one.select in ("random", "others")]
    assert len({str(one.heads) for one in chosen_for(profile, draws=8) if one.select == "random"}) > 2


def test_configurations_that_cannot_be(profile):
    for ks in ((), (0,), (3, 3), (4,)):  # 4 is no whole number of KV heads
        with pytest.raises(WrongValue):
            chosen_for(profile, ks)
    with pytest.raises(BudgetTooLarge):
        chosen_for(profile, (9,))


@pytest.mark.parametrize("how", ABLATION_TREATMENTS)
def test_replay_is_the_full_pass(model, how):
    samples = list(open_dataset("synthetic", samples=4, seed=2))
    samples[1] = replace(samples[1], answer="red circle", options=("red circle", "red square"))
    (batch, _), (masked, asked) = (make_answered_batch(model, samples, padding) for padding in ("right", "left"))
    geometry = model.geometry
    granularity = "kv_group" if geometry.group_size > 1 else "query_head"
    options = {"draws": 1, "seed": 0, "granularity": granularity, "how": how}
    chosen = configurations(profile_of(model), [str(geometry.group_size)], **options)
    kept = CachedForward(model, batch, range(geometry.layers))
    stock = next_token_logits(model, batch)
    assert (kept.logits - stock).abs().max() < 1e-4
    for one in chosen:
        assert len(one.heads) == one.k
        means = one.plan.compensation.means
        assert (means is not None) == (how == "mean")
        lengths = asked.prompt_lengths
        with treated(
            model.model, one.treatments, compensation_means=means, block_size=4, prompt_lengths=lengths
        ) as positions:
            expected = next_token_logits(model, masked)
            positions.note(batch.spans, batch.valid)
            for layer in range(min(layer for layer, _ in one.heads) + 1):
                assert (kept.logits_from(layer) - expected).abs().max() < 1e-4
        assert (expected - stock).abs().max() > 1e-3, "nothing was treated"
    assert (kept.logits_from(0) - stock).abs().max() < 1e-4


def test_ablation_is_what_each_plan_gives_alone(llava, profile, dataset, whole):
    result, _ = whole
    samples = list(dataset)
    families = [sample.family for sample in samples]
    made = [make_batch(llava, samples[i : i + 5]) for i in range(0, SAMPLES, 5)]

    def right():
        tokens = [next_token_logits(llava, batch).argmax(-1).tolist() for batch in made]
        said = [llava.processor.tokenizer.decode([token]) for row in tokens for token in row]
        return np.array([word == sample.answer for word, sample in zip(said, samples, strict=True)])

    baseline = right()
    assert 0 < baseline.sum() < SAMPLES
    assert result.baseline == figures(families, baseline)
    flips = 0
    for one, row in zip(chosen_for(profile), result.rows, strict=True):
        assert (row.select, row.stage, row.k, row.seed) == (one.select, one.stage, one.k, one.seed)
        assert row.heads == [list(head) for head in one.heads]
        with plan_treated(llava.model, one.plan):
            assert row.figures == compared(families, baseline, right())
        flips += row.figures[0].only_baseline
    assert flips > 0


def test_the_file_is_the_document(whole):
    result, out = whole
    assert Ablation.model_validate_json(out.read_text()) == result
    assert list(out.parent.iterdir()) == [out]  # the state is gone


def test_an_interrupted_run_continues_to_the_same_file(llava, profile, dataset, whole, tmp_path, monkeypatch):
    result, out = whole
    run = MaskedRunSettings(tmp_path / "ablation.json", batch_size=6, show_progress=False)
    add, calls = masked_runs._VariantAnswers.add, []

    def then_interrupt(*arguments):
        calls.append(1)
        add(*arguments)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(masked_runs._VariantAnswers, "add", then_interrupt)
    with pytest.raises(Stopped) as stopped:
        ablate(llava, profile, dataset, chosen_for(profile), run)
    assert stopped.value.code == 130
    assert not run.out.exists()
    with pytest.raises(StateMismatch, match="heads"):
        ablate(llava, profile, dataset, chosen_for(profile, (3,)), run)
    calls.clear()
    calls.append(0)  # no signal any more
    assert ablate(llava, profile, dataset, chosen_for(profile), run) == result
    assert len(calls) == 1 + 2  # of three batches, the first was kept
    assert run.out.read_bytes() == out.read_bytes()
    assert list(tmp_path.iterdir()) == [run.out]


def test_a_full_device_says_what_to_do_and_keeps_what_is_done(llava, profile, dataset, whole, tmp_path, monkeypatch):
    run = MaskedRunSettings(tmp_path / "ablation.json", batch_size=6, show_progress=False)
    calls = []

    def full(*args):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return make_answered_batch(*args)

    monkeypatch.setattr(masked_runs, "make_answered_batch", full)
    with pytest.raises(OutOfDeviceMemory, match="--batch-size 3, which continues"):
        ablate(llava, profile, dataset, chosen_for(profile), run)
    assert np.load(tmp_path / "ablation.json.partial")["right"].shape[1] == 6
    assert ablate(llava, profile, dataset, chosen_for(profile), replace(run, batch_size=3)).rows == whole[0].rows


def test_figures_by_hand():
    families = ["a", "a", "b", "b", "b"]
    baseline = np.array([True, True, True, False, True])
    masked = np.array([True, False, False, True, False])
    everything, a, b = compared(families, baseline, masked)
    assert [one.family for one in (everything, a, b)] == ["all", "a", "b"]
    assert (everything.samples, everything.correct, everything.only_baseline, everything.only_masked) == (5, 2, 3, 1)
    assert everything.difference == pytest.approx(-0.4)
    assert (everything.low, everything.high) == wilson(2, 5)
    assert (everything.difference_low, everything.difference_high) == difference_interval(1, 3, 1, 0)
    assert everything.p == mcnemar_exact(3, 1)
    assert (a.only_baseline, a.only_masked, b.only_baseline, b.only_masked) == (1, 0, 2, 1)


def test_tables_show_the_figures(whole):
    result, _ = whole
    assert accuracy_curve(result).count("<svg") == 1  # of a table too
    stages, families = stage_grid(result), family_grid(result)
    text = markdown(stages)
    lines = text.splitlines()
    assert lines[2] == "| KV groups | 1 KV group (3 heads) | 2 KV groups (6 heads) |"
    assert stages.title.startswith("Accuracy with KV groups removed")
    assert families.title == "By question family, 2 KV groups (6 heads) removed"
    assert [line.split(" | ")[0] for line in lines[4:] if line.startswith("|")] == [
        "| none",
        *(f"| {select} {stage}" for select, stage in TABLE.rows),
    ]
    first = next(row for row in result.rows if (row.select, row.stage, row.k) == ("top", "early", 3)).figures[0]
    assert f"| {100 * first.accuracy:.1f}%<br>" in lines[5]
    late = [row for row in result.rows if (row.select, row.stage, row.k) == ("random", "late", 6)]
    draws = [row.figures[0].accuracy for row in late]
    (random,) = (line for line in lines if line.startswith("| random late"))
    assert random.endswith(f"<br>{100 * min(draws):.1f}% to {100 * max(draws):.1f}% in 2 draws |")
    assert f"| {100 * np.mean(draws):.1f}%<br>" in random
    (early,) = (line for line in lines if line.startswith("| others early"))
    assert early.endswith("| \N{EN DASH} |")  # six others of six heads are none
    assert families.header == ["KV groups", *(one.family for one in result.baseline)]
    weak = [one.p >= 0.05 for row in result.rows for one in row.figures[:1]]
    assert any(weak)
    assert "n.s." in text
    assert lines[-1].startswith("n.s.: not significant")
    for row in result.rows:
        if row.seed is None:
            (line,) = (line for line in lines if line.startswith(f"| {row.select} {row.stage} "))
            cell = line.split(" | ")[1 + (row.k == 6)]
            assert ("n.s." in cell) == (row.figures[0].p >= 0.05)
    assert drawn(stages).row_count == 1 + len(TABLE.rows)
    by_heads = result.model_copy(update={"heads_together": None})
    assert stage_grid(by_heads).header == ["heads", "k = 3", "k = 6"]
    assert stage_grid(by_heads).title.startswith("Accuracy with k heads removed")
    assert share_grid(by_heads).header[0] == family_grid(by_heads).header[0] == "heads"
    assert share_grid(result).title.startswith("Accuracy with a share of the KV groups removed")


def test_the_document_says_what_was_treated_at_once(whole, llava, profile, dataset, tmp_path):
    result, out = whole
    assert result.heads_together == json.loads(out.read_text())["heads_together"] == 3
    chosen = configurations(profile, ["4"], shape=SHORT_CURVE, draws=1, seed=0, granularity="query_head")
    run = MaskedRunSettings(tmp_path / "heads.json", batch_size=6, show_progress=False)
    assert ablate(llava, profile, dataset, chosen, run).heads_together is None
    assert "heads_together" not in json.loads(run.out.read_text())
