"""Prompts: the template, image tokens, and that a batch changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from calibrate.datasets.sample import Sample
from calibrate.errors import NoImageTokens, PlaceholderInText, PromptTooLong, TemplateBroken
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.batches import collate, make_batch
from calibrate.models.prompts import make_prompt, prompt_text

QUESTIONS = ["How many red circles are there?", "Is there a blue square in the picture?", "How many?"]
SIZES = [(100, 80), (72, 72), (60, 150)]


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)

    def sample(index, question, size):
        pixels = rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        return Sample(str(index), Image.fromarray(pixels), question, "1", "general", ("1", "2"), (20, 24, 50, 60))

    return [sample(i, *pair) for i, pair in enumerate(zip(QUESTIONS, SIZES, strict=True))]


def test_the_prompt_is_the_chat_template_up_to_the_answer(llava):
    assert prompt_text(llava, "How many?") == "<s>USER: <image>\nHow many? ASSISTANT:"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("llava", "<s>USER: <image>\nHow many? ASSISTANT:"),
        ("vip_llava", "<s>###Human: <image>\nHow many?###Assistant:"),
    ],
)
def test_a_checkpoint_without_a_template_gets_the_one_it_was_trained_with(kind, text, request, monkeypatch):
    loaded = request.getfixturevalue(kind)
    monkeypatch.setattr(loaded.processor, "chat_template", None)
    monkeypatch.setattr(loaded.processor.tokenizer, "chat_template", None)
    assert prompt_text(loaded, "How many?") == text
    assert loaded.template.source == "fallback"


def test_tokens_are_what_transformers_own_chat_call_makes(model, samples):
    for sample in samples:
        content = [{"type": "image", "image": sample.image}, {"type": "text", "text": sample.question}]
        theirs = model.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ours = make_prompt(model, sample)
        assert torch.equal(ours.tokens, theirs["input_ids"][0])
        assert torch.equal(ours.pixels["pixel_values"], theirs["pixel_values"])


def test_image_tokens_are_counted_per_picture(llava, llava_next, samples):
    assert [int(make_prompt(llava, sample).image.sum()) for sample in samples] == [81, 81, 81]
    counts = [int(make_prompt(llava_next, sample).image.sum()) for sample in samples]
    assert counts[1] == llava_next.geometry.image_tokens
    assert len(set(counts)) == 3


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_batch_changes_nothing(model, samples, padding):
    alone = torch.cat([next_token_logits(model, make_batch(model, [sample])) for sample in samples])
    batch = make_batch(model, samples, padding)
    assert (~batch.valid).any(), "no sample was padded"
    together = next_token_logits(model, batch)
    assert alone.std() > 0.1
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_masks_follow_the_padding(model, samples, padding):
    prompts = [make_prompt(model, sample) for sample in samples]
    batch = collate(model, prompts, padding)
    for row, prompt in enumerate(prompts):
        kept = batch.valid[row]
        assert torch.equal(batch.inputs["input_ids"][row][kept], prompt.tokens)
        assert torch.equal(batch.image[row][kept], prompt.image)
        assert torch.equal(batch.box[row][kept], prompt.box)
        assert not (batch.image[row] | batch.box[row])[~kept].any()
        assert kept.nonzero().max() == batch.last[row]
        assert (batch.box[row] <= batch.image[row]).all()


def test_samples_without_a_box(llava, samples):
    batch = make_batch(llava, [samples[0], replace(samples[1], box=None)])
    assert batch.has_box.tolist() == [True, False]
    assert not batch.box[1].any()


def test_a_template_without_a_place_for_the_picture(llava, samples, monkeypatch):
    monkeypatch.setattr(llava.processor, "chat_template", "{{ messages[0]['content'][1]['text'] }}")
    with pytest.raises(NoImageTokens, match="no places for the picture"):
        make_prompt(llava, samples[0])


def test_a_template_that_cannot_be_rendered(llava, samples, monkeypatch):
    for broken in ("{% for message in", "{{ raise_exception('roles') }}", "{{ messages[0].content.missing.deeper }}"):
        monkeypatch.setattr(llava.processor, "chat_template", broken)
        with pytest.raises(TemplateBroken) as error:
            make_prompt(llava, samples[0])
        assert "\n" not in str(error.value)


PLACEHOLDERS = ["Is this <image> red?", "<image> Is it <image>", "<image>", "<image><image>red?", "a<image>b"]


@pytest.mark.parametrize("question", PLACEHOLDERS)
def test_a_placeholder_among_the_words_is_refused(llava, samples, question):
    with pytest.raises(PlaceholderInText) as error:
        make_prompt(llava, replace(samples[0], id="record 7", question=question))
    assert "sample record 7" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_prompt_longer_than_the_model_is_refused(llava, samples):
    room = llava.context_length - 1
    words = room - len(make_prompt(llava, samples[0]).tokens)
    longest = replace(samples[0], id="record 7", question=samples[0].question + " red" * words)
    assert len(make_prompt(llava, longest).tokens) == room
    with pytest.raises(PromptTooLong, match=r"sample record 7: its prompt has 2,048 tokens; expected at most 2,047"):
        make_prompt(llava, replace(longest, question=longest.question + " red"))
