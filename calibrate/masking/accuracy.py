"""Accuracy of a model on samples: which answers are correct, judged by the first token that greedy decoding gives.

Owns when a token is a correct answer. Answers of several tokens are
compared by their first token, where that differs between a sample's options. Does not know how logits are computed,
datasets, plans or statistics.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from calibrate.datasets.families import Right
from calibrate.datasets.sample import Sample
from calibrate.errors import AnswersAlike
from calibrate.models.loading import LoadedModel


class AnswerMatcher:
    """Compares predicted tokens with the answers of samples, for one model's tokenizer."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._answers = loaded.answers

    def matches(self, tokens: Tensor, samples: Sequence[Sample]) -> Right:
        """Whether the predicted token of each sample is its answer, or the answer's first token; `(batch,)`.

        Parameters
        ----------
        tokens
            Token ids, shape `(batch,)`.

        Raises
        ------
        AnswersAlike
            A sample's answer begins with the same token as another of its options.
        """
        found = [self._is_answer(token, sample) for token, sample in zip(tokens.tolist(), samples, strict=True)]
        return np.array(found, dtype=np.bool_)

    def option_of(self, token: int, sample: Sample) -> str | None:
        """The option of a sample that a token is, or that begins with it; `None` where there is none."""
        word = self._answers.word(token).casefold()
        whole = next((option for option in sample.options if option.casefold() == word), None)
        begun = (option for option in sample.options if self._answers.first(sample, option) == token)
        return whole or next(begun, None)

    def first_token(self, sample: Sample) -> int:
        """First token of a sample's answer behind what all its options share; other options may begin with it too."""
        return self._answers.first(sample, sample.answer)

    def distinct_first_token(self, sample: Sample) -> int:
        """`first_token`, with which no other option begins.

        Raises
        ------
        AnswersAlike
            Another option begins with it.
        """
        answer, token = sample.answer.casefold(), self.first_token(sample)
        others = (option for option in sample.options if option.casefold() != answer)
        if alike := [option for option in others if self._answers.first(sample, option) == token]:
            raise AnswersAlike(
                f"sample {sample.id}: answers {sample.answer!r} and {alike[0]!r} begin with the same token",
                expected="answers that this model's first token tells apart",
                fix="use `vhserve evaluate`, where a server writes whole answers, or calibrate with --no-effects",
            )
        return token

    def _is_answer(self, token: int, sample: Sample) -> bool:
        same = self._answers.word(token).casefold() == sample.answer.casefold()
        return same or token == self.distinct_first_token(sample)
