"""Which samples of a dataset ask what a treatment of replies loses: those with an answer of several tokens.

Owns the rule and the dataset that is left. An evicted head sees the whole prompt, and so does the first token of every
reply: an answer that it tells is the same with any heads evicted. Does not know how answers are judged.
"""

from collections.abc import Callable
from typing import Final

from calibrate.datasets import Dataset
from calibrate.datasets.base import BrokenImage
from calibrate.datasets.sample import Sample
from calibrate.errors import AnswersTooShort
from calibrate.models.answer_tokens import AnswerTokens
from profiles.head_profile import DatasetRef
from profiles.treatments import TREATMENTS

LEFT_OUT: Final = "one_token_answers_left_out"
"""Setting of the `DatasetRef` of what is left: how many samples are not."""


def samples_asking(dataset: Dataset, answers: AnswerTokens, treatment: str, say: Callable[[str], None]) -> Dataset:
    """The samples that can show what a treatment does, all of them for most; says how many are left out.

    Parameters
    ----------
    treatment
        Name of a treatment of `profiles.treatments`, or of what only an ablation does.

    Raises
    ------
    AnswersTooShort
        There are none.
    """
    if treatment not in TREATMENTS or TREATMENTS[treatment].changes_prompt:
        return dataset
    chosen = [index for index in range(len(dataset)) if _asks(dataset, index, answers)]
    short = len(dataset) - len(chosen)
    said = (
        f"{short} of {len(dataset)} samples of dataset {dataset.name} have an answer of one token, which no "
        f"{TREATMENTS[treatment].label} head can change: whether that is harmless is not asked"
    )
    if not chosen:
        raise AnswersTooShort(said, expected="answers of several tokens", fix="give another --dataset, or --families")
    if short:
        say(f"{said} there; the other {len(chosen)} are measured")
    return _Chosen(dataset, chosen) if short else dataset


def _asks(dataset: Dataset, index: int, answers: AnswerTokens) -> bool:
    """Whether a token of a sample's answer is predicted behind another of the reply; a broken one is to be reported."""
    try:
        return answers.replied(dataset.read(index)) > 0
    except BrokenImage:
        return True


class _Chosen(Dataset):
    """Some samples of a dataset."""

    def __init__(self, whole: Dataset, indices: list[int]) -> None:
        super().__init__(whole.name)
        self._whole, self._indices = whole, indices
        self.metric, self.say = whole.metric, whole.say

    def ref(self) -> DatasetRef:
        whole = self._whole.ref()
        return whole.model_copy(update={"settings": whole.settings | {LEFT_OUT: len(self._whole) - len(self)}})

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> Sample:
        return self._whole.read(self._indices[index])
