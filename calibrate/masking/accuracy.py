"""Accuracy of a model on samples: which answers are correct, judged by the tokens that greedy decoding gives.

Owns when tokens are a correct answer. One token is enough where it tells the answer from every other option; else the
whole answer and its end count, each position being given what should stand before it: that is what greedy decoding
would write, upper and lower case aside. Does not know how logits are computed, datasets, plans or statistics.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from calibrate.datasets.families import Right
from calibrate.datasets.sample import Sample
from calibrate.models.loading import LoadedModel


class AnswerMatcher:
    """Compares predicted tokens with the answers of samples, for one model's tokenizer."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._answers = loaded.answers

    def matches(self, tokens: Tensor, samples: Sequence[Sample]) -> Right:
        """Whether the predicted tokens of each sample are its answer; `(batch,)`.

        Parameters
        ----------
        tokens
            Likeliest tokens at the predicting positions of a batch that was made with answers, `(batch, m)`; or first
            tokens, `(batch,)`, of samples whose answers these tell.

        Raises
        ------
        ValueError
            There are fewer tokens than the answer of a sample takes.
        """
        rows = (tokens if tokens.ndim == 2 else tokens[:, None]).tolist()
        return np.array([self._is_answer(row, one) for row, one in zip(rows, samples, strict=True)], dtype=np.bool_)

    def option_of(self, token: int, sample: Sample) -> str | None:
        """The option of a sample that a token is, or that begins with it; `None` where there is none."""
        word = self._answers.word(token).casefold()
        whole = next((option for option in sample.options if option.casefold() == word), None)
        begun = (option for option in sample.options if self._answers.first(sample, option) == token)
        return whole or next(begun, None)

    def first_token(self, sample: Sample) -> int:
        """First token of a sample's answer behind what all its options share; other options may begin with it too."""
        return self._answers.first(sample, sample.answer)

    def _is_answer(self, tokens: list[int], sample: Sample) -> bool:
        answers = self._answers
        forced = answers.forced(sample)
        if not forced:
            said = answers.word(tokens[0]).casefold() == sample.answer.casefold()
            return said or tokens[0] == self.first_token(sample)
        if len(tokens) <= len(forced):
            raise ValueError(f"sample {sample.id}: {len(tokens)} tokens of an answer of {len(forced)} and its end")
        # strict=False: what lies beyond an answer's end belongs to longer ones of the batch.
        same = all(answers.same(token, expected) for token, expected in zip(tokens, forced, strict=False))
        return same and answers.ended_by(tokens[len(forced)], sample)
