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
from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import make_batch, next_token_logits
from calibrate.runs.progress import progress_bar

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
        self._answers = loaded.answers

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
        word = self._answers.word(token).casefold()
        whole = next((option for option in sample.options if option.casefold() == word), None)
        begun = (option for option in sample.options if self._answers.first(sample, option) == token)
        return whole or next(begun, None)

    def first(self, sample: Sample) -> int:
        """First token of a sample's answer that says something, though another option may begin with it."""
        return self._answers.first(sample, sample.answer)

    def telling(self, sample: Sample) -> int:
        """`first`, where it tells the answer.

        Raises
        ------
        AnswersAlike
            Another of its options begins with the same.
        """
        answer, token = sample.answer.casefold(), self.first(sample)
        others = (option for option in sample.options if option.casefold() != answer)
        if alike := [option for option in others if self._answers.first(sample, option) == token]:
            raise AnswersAlike(
                f"sample {sample.id}: answers {sample.answer!r} and {alike[0]!r} begin with the same token",
                expected="answers that this model's first token tells apart",
                fix="use `vhserve evaluate`, where a server writes whole answers, or calibrate without --effects",
            )
        return token

    def _is_right(self, token: int, sample: Sample) -> bool:
        same = self._answers.word(token).casefold() == sample.answer.casefold()
        return same or token == self.telling(sample)


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
