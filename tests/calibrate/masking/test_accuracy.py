"""When an answer counts as right, and that batches change nothing."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from answering import answer_all

from calibrate.datasets import Sample, open_dataset
from calibrate.datasets.families import by_family
from calibrate.masking.accuracy import AnswerMatcher
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.answer_tokens import AnswerTokens
from calibrate.models.batches import make_answered_batch, make_batch
from vhserve.evaluation.scoring import score


def sample_of(answer, options):
    image = next(iter(open_dataset("synthetic", samples=1, seed=0))).image
    return Sample("one", image, "How many?", answer, "object", options)


def test_the_right_token_in_any_case(llava):
    matcher, vocabulary = AnswerMatcher(llava), llava.processor.tokenizer.get_vocab()
    two, letter = sample_of("2", ("1", "2")), sample_of("a", ("a", "B"))
    tokens = torch.tensor([vocabulary[word] for word in ("2", "1", "A", "B")])
    assert matcher.matches(tokens, [two, two, letter, letter]).tolist() == [True, False, True, False]


def test_longer_answers_are_judged_by_all_tokens_and_their_end(llava):
    matcher, vocabulary = AnswerMatcher(llava), llava.processor.tokenizer.get_vocab()
    stop = llava.processor.tokenizer.eos_token_id
    for options in (("red circle", "blue circle"), ("red circle", "red square")):
        longer = sample_of("red circle", options)
        said = [("red", "circle"), ("red", "square"), ("blue", "circle"), ("red", "circle")]
        ends = [stop, stop, stop, vocabulary["red"]]
        tokens = [[*(vocabulary[word] for word in words), end] for words, end in zip(said, ends, strict=True)]
        assert matcher.matches(torch.tensor(tokens), [longer] * 4).tolist() == [True, False, False, False]
        with pytest.raises(ValueError, match="2 tokens of an answer of 2 and its end"):
            matcher.matches(torch.tensor(tokens)[:, :2], [longer] * 4)


@pytest.mark.parametrize("seed", range(3))
def test_answers_of_several_words_are_what_greedy_decoding_writes(model, seed):
    """As `vhserve evaluate` scores the same reply: a prefix of what the model writes, and it with a word changed."""
    print("seed", seed)
    draw = random.Random(seed)
    samples = list(open_dataset("synthetic", samples=4, seed=seed))
    tokenizer = model.processor.tokenizer
    outcomes = []
    for sample in samples:
        ids = model.model.generate(**make_batch(model, [sample]).inputs, max_new_tokens=5, do_sample=False)[0, -5:]
        written = ids.tolist()
        words = [tokenizer.decode([one]).strip() for one in written]
        if not all(words) or tokenizer(" ".join(words), add_special_tokens=False)["input_ids"] != written:
            continue  # not what the tokenizer makes of these words
        length, stop = draw.randint(1, 4), draw.randint(1, 4)
        wrong = [*words[: length - 1], "square" if words[length - 1] != "square" else "circle"]
        for answer in (words[:length], wrong):
            options = (" ".join(answer), " ".join([*answer, "blue"]), words[0])
            asked = Sample(sample.id, sample.image, sample.question, options[0], "f", options)
            stops = {written[stop]}
            if stops & set(tokenizer(options[0], add_special_tokens=False)["input_ids"]):
                continue  # no answer has the token that ends replies
            loaded = replace(model)
            loaded.__dict__["answers"] = AnswerTokens(tokenizer, stops)
            batch, _ = make_answered_batch(loaded, [asked])
            tokens = next_token_logits(loaded, batch).argmax(-1)
            end = next(place for place, one in enumerate(written) if one in stops)
            expected = score(tokenizer.decode(written[:end]), asked.answer, asked.options) == "correct"
            outcomes.append(expected)
            assert AnswerMatcher(loaded).matches(tokens, [asked]).tolist() == [expected], (words, length, stop, answer)
    print(outcomes)


def test_answers_are_greedy_decoding_of_one_token_whatever_the_batch(model):
    samples = list(open_dataset("synthetic", samples=5, seed=1))
    said = []
    for sample in samples:
        inputs = make_batch(model, [sample]).inputs
        ids = model.model.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1]
        said.append(model.processor.tokenizer.decode([ids]))
    # Every other sample is made one that the model has right.
    asked = [
        Sample(s.id, s.image, s.question, word if i % 2 else s.answer, s.family, (word, s.answer))
        for i, (s, word) in enumerate(zip(samples, said, strict=True))
    ]
    expected = [word.casefold() == sample.answer.casefold() for word, sample in zip(said, asked, strict=True)]
    assert sum(expected) > 0
    assert not all(expected)
    for size in (2, 5):
        answered = answer_all(model, asked, batch_size=size)
        assert answered.right.tolist() == expected
    assert answered.ids == [sample.id for sample in asked]
    assert answered.families == [sample.family for sample in asked]


def test_families():
    families = by_family(["b", "a", "b"])
    assert list(families) == ["all", "b", "a"]
    assert {name: own.tolist() for name, own in families.items()}["b"] == [True, False, True]
    assert np.all(families["all"])
