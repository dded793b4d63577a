"""Training of the demo model: eight questions in a sequence are eight exact prompts, and a run goes on where it was."""

from pathlib import Path
from typing import Any

import pytest
import torch

from calibrate.datasets.synthetic import samples
from calibrate.datasets.synthetic.vocabulary import REGIONS
from calibrate.demo.build import ASSISTANT, TOKENS, build_tokenizer, patch_targets
from calibrate.demo.lessons import (
    KINDS,
    LENGTH,
    NO_REGION,
    PREFIX,
    QUESTIONS,
    SLOT,
    Lessons,
    block_mask,
    encode,
    positions,
)
from calibrate.demo.trainer import Settings, Trainer

SMALL: dict[str, Any] = {
    "minutes": 1.0,
    "steps": 4,
    "stop_after": 0.0,
    "batch": 2,
    "align_steps": 2,
    "curriculum": 0,
    "learning_rate": 1e-3,
    "seed": 3,
    "workers": 0,
    "device": "cpu",
    "compile": False,
    "log_every": 1,
    "save_every": 100,
}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(Settings(out=tmp_path_factory.mktemp("run"), **SMALL))


@torch.no_grad()
def test_a_slot_is_the_prompt_that_is_served(trainer: Trainer) -> None:
    batch = Lessons(1, seed=0, curriculum=0)[0]
    inner = trainer.model.model
    words = inner.language_model.embed_tokens(batch.tokens)
    patches = inner.multi_modal_projector(trainer._see(batch.pixels))
    hidden = inner.language_model(
        inputs_embeds=torch.cat([words[:, :1], patches, words[:, PREFIX:]], 1),
        attention_mask=trainer.mask,
        position_ids=trainer.positions,
        use_cache=False,
    ).last_hidden_state
    pixels = batch.pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    for slot, end in enumerate(batch.ends[0].tolist()):
        alone = torch.cat([batch.tokens[:, :PREFIX], batch.tokens[:, PREFIX + slot * SLOT : end + 1]], 1)
        served = trainer.model(input_ids=alone, pixel_values=pixels).logits[0, -1]
        assert (trainer.model.lm_head(hidden[0, end]) - served).abs().max() < 1e-4


def test_mask_lets_a_slot_see_the_picture_and_itself() -> None:
    mask, place = block_mask(), positions()
    assert mask.shape == (LENGTH, LENGTH)
    first, second = PREFIX, PREFIX + SLOT
    assert mask[second, :PREFIX].all()
    assert not mask[second, first : first + SLOT].any()
    assert mask[second + 3, second : second + 4].all()
    assert not mask[second + 3, second + 4 :].any()
    assert mask.diagonal().all()  # a row that sees nothing would be NaN
    assert place[first] == place[second] == PREFIX


def test_fast_encoding_is_the_tokenizers() -> None:
    tokenizer = build_tokenizer()
    for sample in samples(80, split="choosing"):
        assert encode(sample.question) == tokenizer(sample.question)["input_ids"]


def test_batches_follow_from_seed_and_step() -> None:
    lessons = Lessons(3, seed=1, curriculum=0)
    assert all(torch.equal(a, b) for a, b in zip(lessons[5], lessons[5], strict=True))
    assert not torch.equal(lessons[5].pixels, lessons[6].pixels)
    assert not torch.equal(lessons[5].pixels, Lessons(3, seed=2, curriculum=0)[5].pixels)


def test_labels_stand_where_they_say() -> None:
    batch = Lessons(8, seed=0, curriculum=0)[0]
    rows = torch.arange(8)[:, None]
    assert (batch.tokens[rows, batch.ends] == TOKENS[ASSISTANT]).all()
    assert torch.equal(batch.tokens[rows, batch.ends + 1], batch.answers)
    asked = batch.found != NO_REGION
    cells = batch.tokens[rows, batch.regions] - TOKENS[REGIONS[0]]
    assert torch.equal(batch.cells[rows, cells.clamp(min=0)][asked], batch.found[asked])
    assert batch.kinds.shape == (8, QUESTIONS)


def test_curriculum_begins_with_look_ups() -> None:
    look_up = KINDS.index("look_up")
    early, late = (Lessons(40, seed=0, curriculum=100)[step].kinds for step in (0, 100))
    assert (early == look_up).float().mean() > 2 * (late == look_up).float().mean()


def test_patch_target_is_a_sum_of_words() -> None:
    words = torch.eye(len(TOKENS))
    target = patch_targets(words)[1, 1 + 4 * 2 + 3, 13]
    named = {word for word, i in TOKENS.items() if target[i]}
    assert named == {"region", "blue", "cross", "b2"}


def test_training_goes_on_exactly_where_it_stopped(trainer: Trainer) -> None:
    """Through the change of phase: two steps of alignment, a stop after one step of teaching, one more."""
    lessons = Lessons(2, seed=3, curriculum=0)

    def steps(run: Trainer, upto: int) -> None:
        while run.step < upto:
            run.train_step(lessons[run.step])

    steps(trainer, 3)
    trainer.save()
    steps(trainer, 4)
    other = Trainer(trainer.settings)
    assert other.resume()
    assert other.step == 3
    steps(other, 4)
    ours, theirs = trainer.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert not Trainer(Settings(out=tmp_path, **SMALL)).resume()
