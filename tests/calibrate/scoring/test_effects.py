"""Effects of treatments against small steps towards them, one head at a time."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from calibrate.datasets import Dataset, open_dataset
from calibrate.masking.accuracy import AnswerMatcher
from calibrate.masking.image_blocks import image_blocks
from calibrate.masking.treatments import text_only_output
from calibrate.models.answer_logits import log_odds, next_token_logits
from calibrate.models.batches import make_answered_batch, make_batch
from calibrate.models.decoder_attention import decoder_attention
from calibrate.scoring.calibration import CalibrationSettings, calibrate
from calibrate.scoring.effects import EFFECTS, head_effects
from calibrate.scoring.scorers.base import BatchSignals
from calibrate.scoring.scorers.effect import Effect
from calibrate.scoring.scorers.gradient import Gradient
from profiles.head_profile import DatasetRef
from profiles.planning.rankings import group_ranking, ranking
from profiles.store import load_profile

STEP = 0.03
"""Of the way to the treatment. RMSNorm computes in float32 whatever the model, which drowns smaller ones."""


@pytest.fixture(scope="module")
def samples():
    return list(open_dataset("synthetic", samples=8, seed=4))[:8:3]


def answers_of(loaded, samples):
    matcher = AnswerMatcher(loaded)
    return torch.tensor([matcher.first_token(sample) for sample in samples])


def tables_of(effects, batch, unit="head"):
    """All that the scorers make of the pass, by treatment and `gradient`."""
    signals = BatchSignals([], batch.image, batch.box, effects=effects)
    if unit == "group":
        return {**Effect().group_values(signals), "gradient": Gradient().group_values(signals)["all"]}
    return {**Effect().values(signals), "gradient": Gradient().values(signals)["all"]}


def after_step(loaded, batch, answers, layer, heads, treatment, block_size, step):
    """Log-odds with the output of heads of one layer moved by `step` of the way to what the treatment makes of it."""
    target = loaded.attentions[layer]
    dropped = image_blocks(batch.spans, batch.valid, block_size)
    place = torch.arange(batch.valid.shape[1])
    in_reply = (place >= torch.tensor(batch.expected.prompt_lengths)[:, None]) & batch.valid

    def attend(module, query, key, value, mask, **options):
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        if module is target:
            group = query.shape[1] // key.shape[1]
            kept = query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
            text = text_only_output(*kept, mask, dropped, options["scaling"])
            there = {
                "text_only": text[:, :, heads],
                # A reply is no image: what it puts out without the image is what a text-only head does.
                "evict": torch.where(in_reply[..., None, None], text[:, :, heads], output[:, :, heads]),
            }.get(treatment, torch.zeros_like(output[:, :, heads]))
            output = output.clone()
            output[:, :, heads] += step * (there - output[:, :, heads])
        return output, None

    with torch.no_grad(), decoder_attention(loaded, attend):
        hidden = loaded.model.model(**batch.inputs, use_cache=False).last_hidden_state
        logits = loaded.model.lm_head(hidden[torch.arange(len(batch))[:, None], batch.predicting])
    if treatment != "gradient":
        return log_odds(logits, answers)
    own = logits.log_softmax(-1).gather(2, answers.clamp(min=0)[..., None])[..., 0]
    return torch.where(answers >= 0, own, 0.0).sum(1)


@pytest.mark.parametrize("unit", ["head", "group"])
@pytest.mark.parametrize("block_size", [None, 16])
@pytest.mark.parametrize("treatment", [*EFFECTS, "gradient"])
def test_effects_are_slopes(model, samples, treatment, block_size, unit):
    """Of answers of one word and of several; of one head, and of all heads of a KV group at once."""
    double = replace(model, model=copy.deepcopy(model.model).double(), dtype=torch.float64)
    longer = replace(samples[0], answer="red circle", options=("red circle", "red square"))
    batch, expected = make_answered_batch(double, [longer, *samples[1:]])
    assert (~batch.valid).any(), "no sample was padded"
    answers = expected.tokens
    assert answers.shape == (len(samples), 3)
    with head_effects(double, block_size) as measure:
        found = tables_of(measure(batch, answers), batch, unit)[treatment]
    geometry = model.geometry
    units = [[head] for head in range(geometry.query_heads)]
    if unit == "group":
        units = [list(geometry.group(kv_head)) for kv_head in range(geometry.kv_heads)]
    assert found.shape == (geometry.layers, len(samples), len(units))
    assert treatment != "evict" or found[:, 1:].count_nonzero() == 0 < found[:, 0].count_nonzero()
    slopes = torch.zeros_like(found)
    for layer in range(geometry.layers):
        for number, heads in enumerate(units):
            ends = [
                after_step(double, batch, answers, layer, heads, treatment, block_size, step) for step in (STEP, -STEP)
            ]
            slopes[layer, :, number] = (ends[0] - ends[1]).abs() / (2 * STEP)
    assert slopes.max() > 1e-4 * (0.01 if treatment == "gradient" else 1)
    torch.testing.assert_close(found, slopes, rtol=0.01, atol=2e-3 * float(slopes.max()))


def test_a_batch_is_its_samples(model, samples):
    with head_effects(model, 16) as measure:
        batches = [make_batch(model, some) for some in (samples, *([one] for one in samples))]
        answers = [answers_of(model, some) for some in (samples, *([one] for one in samples))]
        found = [tables_of(measure(*one), one[0]) for one in zip(batches, answers, strict=True)]
    together, *alone = found
    for name in ("removed", "text_only", "gradient"):
        one_by_one = torch.cat([one[name] for one in alone], 1)
        torch.testing.assert_close(together[name], one_by_one, rtol=1e-3, atol=1e-5)


def test_the_model_is_left_as_it_was(model, samples):
    batch = make_batch(model, samples)
    before = next_token_logits(model, batch)
    with head_effects(model, None) as measure:
        measure(batch, answers_of(model, samples))
    assert torch.equal(next_token_logits(model, batch), before)
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.model.parameters())


def test_log_odds():
    logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])
    p = logits.softmax(-1)[torch.arange(2), torch.tensor([2, 0])]
    torch.testing.assert_close(log_odds(logits, torch.tensor([2, 0])), (p / (1 - p)).log())
    longer, tokens = torch.stack([logits, logits.flip(0), 3 * logits], 1), torch.tensor([[2, 1, -1], [0, -1, -1]])
    each = longer.softmax(-1).gather(2, tokens.clamp(min=0)[..., None])[..., 0]
    p = torch.stack([each[0, 0] * each[0, 1], each[1, 0]])
    torch.testing.assert_close(log_odds(longer, tokens), (p / (1 - p)).log())
    sure = log_odds(torch.tensor([[[60.0, 0.0], [60.0, 0.0]]]), torch.tensor([[0, 0]]))  # no 1 − p of 0
    torch.testing.assert_close(sure, torch.tensor([60.0 - math.log(2)]))


def test_a_profile_holds_the_mean_effects(llava, samples, tmp_path):
    dataset = open_dataset("synthetic", samples=5, seed=4)
    everything = list(dataset)
    profile = calibrate(
        llava,
        dataset,
        CalibrationSettings(tmp_path / "profile.json", 2, seed=4, effects=True, block_size=16, show_progress=False),
    )
    assert load_profile(tmp_path / "profile.json") == profile
    with head_effects(llava, 16) as measure:
        batch = make_batch(llava, everything)
        found = tables_of(measure(batch, answers_of(llava, everything)), batch)
    assert profile.rankings["effect"].block_size == 16
    assert set(profile.rankings["effect"].tables) == {"removed", "text_only"}  # no answer has a reply before it
    assert (ranking(profile, "effect", "evict:2") == ranking(profile, "effect", "text_only")).all()
    for treatment in ("removed", "text_only", "gradient"):
        table = ranking(profile, *(("gradient",) if treatment == "gradient" else ("effect", treatment)))
        np.testing.assert_allclose(table, found[treatment].mean(1), rtol=1e-3, atol=1e-6)
    plain = calibrate(llava, dataset, CalibrationSettings(tmp_path / "plain.json", 2, seed=4, show_progress=False))
    assert not {"effect", "gradient"} & plain.rankings.keys()
    assert plain.rankings == {name: one for name, one in profile.rankings.items() if name not in ("effect", "gradient")}


def test_a_profile_of_a_grouped_model_holds_effects_of_groups(llava, samples, tmp_path):
    asked = list(Alike(samples))
    settings = CalibrationSettings(tmp_path / "profile.json", 2, effects=True, block_size=16, show_progress=False)
    profile = calibrate(llava, Alike(samples), settings)
    assert load_profile(tmp_path / "profile.json") == profile
    batch, expected = make_answered_batch(llava, asked)
    with head_effects(llava, 16) as measure:
        found = tables_of(measure(batch, expected.tokens), batch, "group")
    assert {name for name, one in profile.rankings.items() if one.group_tables} == {"effect", "gradient"}
    by_heads = ranking(profile, "effect").reshape(*found["removed"].mean(1).shape, -1)
    for treatment in ("removed", "text_only", "evict", "gradient"):
        table = group_ranking(profile, *(("gradient",) if treatment == "gradient" else ("effect", treatment)))
        np.testing.assert_allclose(table, found[treatment].mean(1), rtol=1e-3, atol=1e-6)
    # What heads of a group do to an answer partly cancels: it is neither the sum nor the mean over them.
    sums = by_heads.sum(2)
    assert (group_ranking(profile, "effect") <= sums * (1 + 1e-6)).all()
    assert (group_ranking(profile, "effect") < 0.9 * sums).any()
    np.testing.assert_allclose(group_ranking(profile, "score"), profile.scores().reshape(*sums.shape, -1).mean(2))


def test_where_every_head_is_a_group_there_are_no_group_tables(llava_next, samples, tmp_path):
    settings = CalibrationSettings(tmp_path / "profile.json", effects=True, show_progress=False)
    profile = calibrate(llava_next, Alike(samples), settings)
    assert "effect" in profile.rankings
    assert all(one.group_tables is None for one in profile.rankings.values())
    assert "group_tables" not in (tmp_path / "profile.json").read_text()


class Alike(Dataset):
    """Answers that begin with the same word."""

    def __init__(self, samples):
        super().__init__("alike")
        self._samples = [replace(one, options=("red circle", "red square"), answer="red circle") for one in samples]

    def ref(self):
        return DatasetRef(name=self.name, digest=None, split=None, settings={})

    def __len__(self):
        return len(self._samples)

    def read(self, index):
        return self._samples[index]


def test_answers_that_begin_alike_have_effects_of_the_whole_answer(llava, samples, tmp_path):
    settings = CalibrationSettings(tmp_path / "profile.json", effects=True, show_progress=False)
    profile = calibrate(llava, Alike(samples), settings)
    asked = list(Alike(samples))
    batch, expected = make_answered_batch(llava, asked)
    with head_effects(llava, None) as measure:
        found = tables_of(measure(batch, expected.tokens), batch)
    np.testing.assert_allclose(ranking(profile, "effect", "removed"), found["removed"].mean(1), rtol=1e-3, atol=1e-6)
    # What a part of the image is worth to replies is not measured; all of it is.
    for name in ("evict", "evict:4"):
        np.testing.assert_allclose(ranking(profile, "effect", name), found["evict"].mean(1), rtol=1e-3, atol=1e-6)
    assert found["evict"].any()
    # What else is measured is measured on the prompt alone.
    plain = calibrate(llava, Alike(samples), CalibrationSettings(tmp_path / "plain.json", show_progress=False))
    assert plain.rankings == {name: one for name, one in profile.rankings.items() if name not in ("effect", "gradient")}
