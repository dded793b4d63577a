"""Accuracy of a model on samples: one prefill each, and the likeliest of all tokens as the answer.

Owns when a token is right, and the record of which samples are. That is what greedy decoding of one token gives; longer
answers are judged by their first token, where that tells them apart. Does not know datasets, plans or statistics.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from calibrate.datasets.sample import Sample
from calibrate.errors import AnswersAlike
from calibrate.loading import LoadedModel
from calibrate.progress import progress_bar
from calibrate.prompts import make_batch, next_token_logits

ALL: Final = "all"
"""Stands for all question families together."""

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """Which samples a model has right.

    Attributes
    ----------
    ids, families
        Of the samples, in order.
    right
        `(samples,)`; pairs with that of any other model on the same samples.
    """

    ids: list[str]
    families: list[str]
    right: Right


class Judge:
    """Says which tokens are right answers, for one model's tokenizer."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._tokenizer = loaded.processor.tokenizer
        self._before: list[int] = self._tokenizer("ASSISTANT:", add_special_tokens=False)["input_ids"]
        self._first: dict[str, int] = {}

    def right(self, tokens: Tensor, samples: Sequence[Sample]) -> Right:
        """Judge the likeliest token of each sample.

        Parameters
        ----------
        tokens
            Token ids, shape `(batch,)`.

        Raises
        ------
        AnswersAlike
            A sample's answer begins as another of its options does.
        """
        judged = [self._is_right(token, sample) for token, sample in zip(tokens.tolist(), samples, strict=True)]
        return np.array(judged, dtype=np.bool_)

    def said(self, token: int, sample: Sample) -> str | None:
        """The option of a sample that a token is, or begins; `None` where it is none of them."""
        word = self._word(token)
        whole = next((option for option in sample.options if option.casefold() == word), None)
        return whole or next((option for option in sample.options if self.first(option) == token), None)

    def telling(self, sample: Sample) -> int:
        """First token of a sample's answer.

        Raises
        ------
        AnswersAlike
            Another of its options begins with the same.
        """
        answer, token = sample.answer.casefold(), self.first(sample.answer)
        alike = [option for option in sample.options if option.casefold() != answer and self.first(option) == token]
        if alike:
            raise AnswersAlike(
                f"sample {sample.id}: answers {sample.answer!r} and {alike[0]!r} begin with the same token",
                expected="answers that this model's first token tells apart",
                fix="use `vhserve evaluate`, where a server writes whole answers, or calibrate without --effects",
            )
        return token

    def _is_right(self, token: int, sample: Sample) -> bool:
        return self._word(token) == sample.answer.casefold() or token == self.telling(sample)

    def _word(self, token: int) -> str:
        word: str = self._tokenizer.decode([token])
        return word.strip().casefold()

    def first(self, answer: str) -> int:
        """First token of an answer, where it stands behind a prompt."""
        if answer not in self._first:
            tokens = self._tokenizer(f"ASSISTANT: {answer}", add_special_tokens=False)["input_ids"]
            self._first[answer] = tokens[len(self._before)]
        return self._first[answer]


def answer_all(
    loaded: LoadedModel, samples: Iterable[Sample], *, total: int, batch_size: int = 32, show_progress: bool = True
) -> Answered:
    """Answer samples, in batches.

    Parameters
    ----------
    total
        How many there are, for the progress bar.

    Raises
    ------
    AnswersAlike
    """
    judge, ids, families, right = Judge(loaded), [], [], []
    with progress_bar("answering", total, shown=show_progress) as advance:
        for batch in batches(samples, batch_size):
            tokens = next_token_logits(loaded, make_batch(loaded, batch)).argmax(-1)
            right.append(judge.right(tokens, batch))
            ids += [sample.id for sample in batch]
            families += [sample.family for sample in batch]
            advance(len(batch))
    return Answered(ids, families, np.concatenate(right) if right else np.zeros(0, np.bool_))


def batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Cut samples into lists of `size`; the last may be shorter."""
    rest = iter(samples)
    while batch := list(islice(rest, size)):
        yield batch


def by_family(families: Sequence[str]) -> dict[str, Right]:
    """Which samples belong to each family, in order of appearance; `all` comes first."""
    names = np.array(families)
    return {ALL: np.ones(len(names), np.bool_)} | {name: names == name for name in dict.fromkeys(families)}
