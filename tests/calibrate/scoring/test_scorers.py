"""The formulas against a slow, obvious reference, and their extremes."""

import math
from typing import get_args

import numpy as np
import pytest
import torch

from calibrate.scoring.effects import EFFECTS, EffectSamples
from calibrate.scoring.scorers import SCORERS
from calibrate.scoring.scorers.base import EPSILON, BatchSignals
from calibrate.scoring.scorers.concentration import concentration
from calibrate.scoring.scorers.image_weight import attention_on
from calibrate.scoring.scorers.score import layer_factor
from profiles.names import LayerFunction
from profiles.ranking import out_of_range

LAYERS, BATCH, HEADS, LENGTH = 3, 4, 5, 17
GROUPS = 2


def slow(row, image, box, layer, layer_function, epsilon):
    """A, box weight, C and S of one head on one sample, straight from the definitions."""
    weight = sum(a for a, seen in zip(row, image, strict=True) if seen)
    inside = sum(a for a, seen in zip(row, box, strict=True) if seen)
    p = [a / (weight + epsilon) for a, seen in zip(row, image, strict=True) if seen]
    entropy = -sum(x * math.log(x + epsilon) for x in p)
    narrow = min(1.0, max(0.0, 1 - entropy / math.log(len(p))))
    return weight, inside, narrow, (1 / (layer + 1) if layer_function == "inverse" else 1.0) * weight * narrow


def score_rows(rows, image, box, **formula):
    """Values of every scorer of attention rows."""
    signals = BatchSignals(rows, image, box, **formula)
    return {name: one.values(signals)["all"] for name, one in SCORERS.items() if "answer_gradient" not in one.needs}


def random_rows(seed):
    print("seed", seed)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(LAYERS, BATCH, HEADS, LENGTH)) * rng.uniform(0.1, 8, size=(LAYERS, 1, HEADS, 1))
    rows = torch.from_numpy(logits).softmax(-1)
    image = torch.from_numpy(rng.random((BATCH, LENGTH)) < 0.6)
    image[:, :2] = True
    box = image & torch.from_numpy(rng.random((BATCH, LENGTH)) < 0.4)
    return rows, image, box


@pytest.mark.parametrize("layer_function", get_args(LayerFunction))
@pytest.mark.parametrize("epsilon", [EPSILON, 1e-3])
@pytest.mark.parametrize("seed", range(3))
def test_against_the_reference(seed, epsilon, layer_function):
    rows, image, box = random_rows(seed)
    found = score_rows(list(rows), image, box, layer_function=layer_function, epsilon=epsilon)
    for layer in range(LAYERS):
        for sample in range(BATCH):
            for head in range(HEADS):
                arguments = (rows[layer, sample, head].tolist(), image[sample].tolist(), box[sample].tolist())
                expected = slow(*arguments, layer, layer_function, epsilon)
                place = layer, sample, head
                tables = ("image_weight", "box_weight", "concentration", "score")
                assert [found[table][place].item() for table in tables] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tokens", [2, 144, 2928])
def test_even_attention_has_no_concentration_and_a_single_token_all_of_it(tokens):
    image = torch.ones(1, tokens + 2, dtype=torch.bool)
    image[:, -2:] = False
    even, one = torch.zeros(2, 1, 1, tokens + 2, dtype=torch.float64)
    even[..., :tokens] = 0.9 / tokens
    even[..., -1] = 0.1
    one[..., tokens // 2], one[..., -1] = 0.01, 0.99
    assert concentration(even, image).item() == pytest.approx(0, abs=1e-6)
    assert concentration(one, image).item() == pytest.approx(1, abs=1e-6)


def test_concentration_does_not_depend_on_how_much_goes_to_the_image():
    rows, image, _ = random_rows(7)
    seen = rows[0] * image[:, None]
    faint = 1e-3 * seen
    torch.testing.assert_close(concentration(faint, image), concentration(seen, image), rtol=0, atol=1e-4)


def test_one_image_token_and_no_attention_at_all_are_no_numbers_to_fear():
    image = torch.tensor([[True, False, False]])
    row = torch.tensor([[[0.3, 0.3, 0.4], [0.0, 0.5, 0.5]]], dtype=torch.float64)
    assert concentration(row, image)[0].tolist() == pytest.approx([1, 1])
    found = score_rows([row], image, image)
    assert found["score"][0, 0].tolist() == pytest.approx([0.3, 0.0])


def test_each_sample_counts_its_own_image_tokens():
    # The same even attention over 4 and over 8 image tokens: both flat, which one shared m would not say.
    row = torch.zeros(2, 1, 8, dtype=torch.float64)
    row[0, :, :4], row[1, :, :] = 1 / 4, 1 / 8
    image = torch.zeros(2, 8, dtype=torch.bool)
    image[0, :4] = image[1] = True
    torch.testing.assert_close(concentration(row, image), torch.zeros(2, 1, dtype=torch.float64), rtol=0, atol=1e-8)


def test_samples_do_not_touch_each_other():
    rows, image, box = random_rows(11)
    order = torch.from_numpy(np.random.default_rng(11).permutation(BATCH))
    found = score_rows(list(rows), image, box)
    moved = score_rows(list(rows[:, order]), image[order], box[order])
    alone = [score_rows(list(rows[:, i : i + 1]), image[i : i + 1], box[i : i + 1]) for i in range(BATCH)]
    for name in found:
        torch.testing.assert_close(moved[name], found[name][:, order])
        torch.testing.assert_close(torch.cat([one[name] for one in alone], 1), found[name])


def test_positions_that_are_not_asked_for_do_not_count():
    row = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]])
    assert attention_on(row, torch.tensor([[True, False, True, False]])).item() == pytest.approx(0.4)


def test_layer_factors():
    assert [layer_factor(layer, "inverse") for layer in range(4)] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert [layer_factor(layer, "none") for layer in range(2)] == [1, 1]


@pytest.mark.parametrize("name", SCORERS)
def test_what_every_scorer_gives(name):
    rows, image, box = random_rows(5)
    drawn = torch.rand(len(EFFECTS), LAYERS, BATCH, HEADS, dtype=torch.float64)
    groups = torch.rand(len(EFFECTS), LAYERS, BATCH, GROUPS, dtype=torch.float64)
    by_name = [dict(zip(EFFECTS, one, strict=True)) for one in (drawn, groups)]
    effects = EffectSamples(*by_name, torch.rand(BATCH, dtype=torch.float64))
    scorer = SCORERS[name]
    signals = BatchSignals(list(rows), image, box, effects=effects)
    values = scorer.values(signals)
    assert set(values) == set(scorer.tables)
    of_groups = scorer.group_values(signals) if scorer.measures_groups else {}
    assert set(of_groups) == (set(scorer.tables) if scorer.measures_groups else set())
    widths = [*((table, HEADS) for table in values.values()), *((table, GROUPS) for table in of_groups.values())]
    for table, width in widths:
        assert (table.shape, table.dtype) == ((LAYERS, BATCH, width), torch.float64)
        assert table.std() > 0
        for sample in table.unbind(1):
            assert not list(out_of_range(name, sample.tolist()))
    if "answer_gradient" in scorer.needs:
        with pytest.raises(ValueError, match="was not run"):
            scorer.values(BatchSignals(list(rows), image, box))
    if "box" in scorer.needs:
        assert not any(table.any() for table in scorer.values(BatchSignals(list(rows), image, box & False)).values())
