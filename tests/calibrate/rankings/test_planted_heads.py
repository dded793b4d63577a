"""The planted heads: what must be found is known beforehand, and every measurement finds it."""

import numpy as np
import pytest
import torch
from answering import answer_all
from planted_model import COLOURS, HEADS, LAYERS, PLANTED, PlantedWorld, make_planted

from calibrate.masking.accuracy import AnswerMatcher
from calibrate.masking.treatments import treated
from calibrate.models.batches import make_batch
from calibrate.models.loading import LoadedModel, load_model
from calibrate.scoring.attention_rows import attention_rows
from calibrate.scoring.effects import head_effects
from calibrate.scoring.scorers import SCORERS
from calibrate.scoring.scorers.base import BatchSignals

SAMPLES = 16
"""Two families, eight colours: each once."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(make_planted(tmp_path_factory.mktemp("planted"))), "float32", "cpu")


@pytest.fixture(scope="module")
def samples():
    return list(PlantedWorld(SAMPLES))


def highest(values):
    """As many heads as are planted, those with the highest values."""
    order = np.argsort(-np.asarray(values), axis=None)[: len(PLANTED)]
    return {tuple(map(int, np.unravel_index(place, (LAYERS, HEADS)))) for place in order}


def test_the_model_answers_everything(planted, samples):
    assert {sample.answer for sample in samples} == set(COLOURS)
    assert answer_all(planted, samples).right.all()


@pytest.fixture(scope="module")
def signals(planted, samples):
    matcher, batch = AnswerMatcher(planted), make_batch(planted, samples)
    with attention_rows(planted) as read:
        rows = read(batch).rows
    with head_effects(planted, None) as measure:
        effects = measure(batch, torch.tensor([matcher.first_token(sample) for sample in samples]))
    return BatchSignals(rows, batch.image, batch.box, effects=effects)


TABLES = [(name, table) for name, one in SCORERS.items() for table in one.tables if table != "evict"]
"""The first token of an answer, which is all that these have, is that of full heads where heads are evicted."""


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_every_scorer_finds_them(name, table, signals):
    scorer = SCORERS[name]
    values = scorer.values(signals)[table].mean(1).numpy() * (1 if scorer.direction == "higher" else -1)
    assert highest(values) == set(PLANTED)
    if "answer_gradient" not in scorer.needs:
        others = [values[place] for place in np.ndindex(LAYERS, HEADS) if place not in PLANTED]
        assert max(others) < 0.05  # of concentration too: what little they see is spread evenly
        if name != "score":
            assert min(values[head] for head in PLANTED) > 0.95


@pytest.mark.parametrize("treatment", ["removed", "text_only"])
def test_ablation_finds_them(treatment, planted, samples):
    """Without a head's bit, one of two colours that differ in it is guessed: half of the answers are right."""
    accuracy = {}
    for place in np.ndindex(LAYERS, HEADS):
        treatments = [["full"] * HEADS for _ in range(LAYERS)]
        treatments[place[0]][place[1]] = treatment
        with treated(planted.model, treatments):
            accuracy[place] = answer_all(planted, samples).right.mean()
    assert {place for place, share in accuracy.items() if share < 1} == set(PLANTED)
    assert {accuracy[place] for place in PLANTED} == {0.5}
