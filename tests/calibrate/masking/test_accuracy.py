"""When an answer counts as right, and that batches change nothing."""

import numpy as np
import pytest
import torch
from answering import answer_all

from calibrate.datasets import Sample, open_dataset
from calibrate.datasets.families import by_family
from calibrate.errors import AnswersAlike
from calibrate.masking.accuracy import AnswerMatcher
from calibrate.models.prompts import make_batch


def sample_of(answer, options):
    image = next(iter(open_dataset("synthetic", samples=1, seed=0))).image
    return Sample("one", image, "How many?", answer, "object", options)


def test_the_right_token_in_any_case(llava):
    matcher, vocabulary = AnswerMatcher(llava), llava.processor.tokenizer.get_vocab()
    two, letter = sample_of("2", ("1", "2")), sample_of("a", ("a", "B"))
    tokens = torch.tensor([vocabulary[word] for word in ("2", "1", "A", "B")])
    assert matcher.matches(tokens, [two, two, letter, letter]).tolist() == [True, False, True, False]


def test_longer_answers_are_judged_by_their_first_token(llava):
    matcher, vocabulary = AnswerMatcher(llava), llava.processor.tokenizer.get_vocab()
    longer = sample_of("red circle", ("red circle", "blue circle"))
    tokens = torch.tensor([vocabulary["red"], vocabulary["blue"]])
    assert matcher.matches(tokens, [longer, longer]).tolist() == [True, False]
    with pytest.raises(AnswersAlike, match="red square"):
        matcher.matches(tokens[:1], [sample_of("red circle", ("red circle", "red square"))])


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
