"""What a model answers untreated and under every variant, over a dataset: the loop, and its saved state.

Owns the passes over the samples and what is kept of each answer. Does not know why the variants were chosen, or what is
made of the answers.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from calibrate.datasets import Dataset, Sample
from calibrate.datasets.metrics import Counted
from calibrate.errors import DatasetBroken
from calibrate.masking.accuracy import AnswerMatcher, Right, batches
from calibrate.masking.prefix_sharing import PrefixSharing, Variant
from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import make_batch
from calibrate.runs.interrupts import Interrupts
from calibrate.runs.progress import progress_bar
from calibrate.runs.settings import RunSettings
from calibrate.runs.state import Arrays, SavedState
from calibrate.scoring.effects import log_odds


@dataclass(frozen=True)
class Run(RunSettings):
    """Settings of a run over variants.

    Attributes
    ----------
    block_size
        Of text-only heads' image blocks; `None` for single image tokens.
    together
        Variants in one pass; `None` for 1 on CPUs and 8 elsewhere.
    """

    batch_size: int = 8
    block_size: int | None = None
    together: int | None = None


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of `1 + variants` models, the untreated one first, to the same samples.

    Attributes
    ----------
    samples
        What was asked, in order: family, right answer and group of each; no reply.
    tokens
        Likeliest first token of each answer, `(1 + variants, samples)`.
    right
        Whether it is right.
    log_odds
        Log-odds of the right answer's first token, in nats, float64.
    """

    samples: list[Counted]
    tokens: npt.NDArray[np.int64]
    right: Right
    log_odds: npt.NDArray[np.float64]

    @property
    def families(self) -> list[str]:
        return [sample.family for sample in self.samples]

    def counted(self, loaded: LoadedModel, variant: int | None) -> list[Counted]:
        """What a variant, or the untreated model, said to each sample: for the dataset's own metric."""
        index = 0 if variant is None else 1 + variant
        decode = loaded.processor.tokenizer.decode
        return [
            Counted(one.family, one.answer, decode([token]).strip(), bool(right), one.group)
            for one, token, right in zip(
                self.samples, self.tokens[index].tolist(), self.right[index].tolist(), strict=True
            )
        ]


def answer_variants(
    loaded: LoadedModel,
    dataset: Dataset,
    variants: Sequence[Variant],
    run: Run,
    state: SavedState,
    interrupts: Interrupts,
    what: str,
) -> Answers:
    """Ask a dataset of the untreated model and of every variant; continues from the saved state.

    The state is saved however the loop ends, and stays until the caller discards it.

    Parameters
    ----------
    what
        Stands in front of the progress bar.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    DatasetBroken, AnswersAlike, FileUnwritable
    """
    if run.restart:
        state.discard()
    saved = state.load()
    empty = np.zeros((1 + len(variants), 0))
    arrays: Arrays = {"tokens": empty, "right": empty, "log_odds": empty} if saved is None else saved
    done, saved_at = arrays["right"].shape[1], time.monotonic()
    samples: list[Counted] = []
    rest = _skipping(dataset, done, samples)
    matcher = AnswerMatcher(loaded)
    sharing = PrefixSharing(loaded, variants, block_size=run.block_size, together=run.together, check=interrupts.check)
    try:
        with progress_bar(what, len(dataset), done, shown=run.show_progress) as advance:
            for some in batches(rest, run.batch_size):
                more = _answered(loaded, matcher, some, sharing, 1 + len(variants))
                arrays = {name: np.hstack([array, more[name]]) for name, array in arrays.items()}
                advance(len(some))
                if time.monotonic() - saved_at >= run.save_every:
                    state.save(arrays)
                    saved_at = time.monotonic()
    finally:
        # Whatever ended the loop: columns are of whole batches. They are kept until the results are written.
        if arrays["right"].shape[1]:
            state.save(arrays)
    interrupts.check()
    if not samples:
        raise DatasetBroken(
            f"dataset {dataset.name} has no sample to measure", expected="at least one", fix="check the dataset"
        )
    return Answers(samples, arrays["tokens"].astype(np.int64), arrays["right"].astype(np.bool_), arrays["log_odds"])


def _skipping(dataset: Dataset, done: int, seen: list[Counted]) -> Iterable[Sample]:
    """Samples behind the first `done`; notes every one on the way."""
    for index, sample in enumerate(dataset):
        seen.append(Counted(sample.family, sample.answer, "", False, sample.group))
        if index >= done:
            yield sample


def _answered(
    loaded: LoadedModel, matcher: AnswerMatcher, samples: list[Sample], sharing: PrefixSharing, rows: int
) -> Arrays:
    """The arrays of `Answers` for one batch."""
    batch = make_batch(loaded, samples)
    answers = torch.tensor([matcher.first_token(sample) for sample in samples], device=loaded.device)
    found: Arrays = {name: np.zeros((rows, len(samples))) for name in ("tokens", "right", "log_odds")}
    for row, logits in sharing.logits(batch):
        tokens = logits.argmax(-1)
        found["tokens"][row] = tokens.cpu().numpy()
        found["right"][row] = matcher.matches(tokens, samples)
        found["log_odds"][row] = log_odds(logits, answers).cpu().numpy()
    return found
