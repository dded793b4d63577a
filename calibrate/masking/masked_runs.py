"""The answers of the untreated model and of every variant of it, to all samples of a dataset.

Owns what is measured of each batch and what is kept of each answer. The loop is `calibrate.runs.loop`. Does not know
why the variants were chosen, or what is computed from the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calibrate.datasets import Sample
from calibrate.datasets.families import Right
from calibrate.datasets.metrics import Counted
from calibrate.masking.accuracy import AnswerMatcher
from calibrate.masking.prefix_sharing import PrefixSharing, Variant
from calibrate.models.answer_logits import log_odds
from calibrate.models.batches import make_answered_batch
from calibrate.models.loading import LoadedModel
from calibrate.runs.interrupts import Interrupts
from calibrate.runs.loop import Measurement, ResumableLoop
from calibrate.runs.settings import RunSettings
from profiles.head_profile import HeadProfile


@dataclass(frozen=True)
class MaskedRunSettings(RunSettings):
    """Settings of a run over variants.

    Attributes
    ----------
    block_size
        Tokens of an image block that text-only heads don't see; `None` for single image tokens.
    together
        Variants in one forward pass; `None` for 1 on CPUs and 8 elsewhere.
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
        The samples in order: family, right answer and group of each; no reply.
    tokens
        Likeliest first token of each answer, `(1 + variants, samples)`.
    right
        Whether greedy decoding gives the right answer, `(1 + variants, samples)`.
    log_odds
        Log-odds of the right answer, in nats, `(1 + variants, samples)`, float64.
    """

    samples: list[Counted]
    tokens: npt.NDArray[np.int64]
    right: Right
    log_odds: npt.NDArray[np.float64]

    @property
    def families(self) -> list[str]:
        return [sample.family for sample in self.samples]

    def counted(self, loaded: LoadedModel, variant: int | None) -> list[Counted]:
        """The answers of a variant, or of the untreated model (`None`): for the dataset's own metric."""
        index = 0 if variant is None else 1 + variant
        decode = loaded.processor.tokenizer.decode
        return [
            Counted(one.family, one.answer, decode([token]).strip(), bool(right), one.group)
            for one, token, right in zip(
                self.samples, self.tokens[index].tolist(), self.right[index].tolist(), strict=True
            )
        ]


def answer_variants(
    loop: ResumableLoop, variants: Sequence[Variant], run: MaskedRunSettings, interrupts: Interrupts, description: str
) -> Answers:
    """Answer a dataset's samples with the untreated model and with every variant of it.

    Continues from the saved state, which stays until the caller discards it.

    Parameters
    ----------
    description
        Stands in front of the progress bar.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    OutOfDeviceMemory, DatasetBroken, FileUnwritable
    """
    measurement = _VariantAnswers(loop.loaded, variants, run, interrupts)
    loop.run(measurement, description, interrupts)
    return measurement.answers()


def masked_run_identity(profile: HeadProfile, run: MaskedRunSettings) -> dict[str, Any]:
    """What the answers depend on, besides model, dataset and variants."""
    return {"profile": profile.digest, "block size": run.block_size}


class _VariantAnswers(Measurement):
    """The arrays of `Answers`, as float64."""

    def __init__(
        self, loaded: LoadedModel, variants: Sequence[Variant], run: MaskedRunSettings, interrupts: Interrupts
    ) -> None:
        self._loaded, self._matcher = loaded, AnswerMatcher(loaded)
        self._sharing = PrefixSharing(
            loaded, variants, block_size=run.block_size, together=run.together, check=interrupts.check
        )
        self._rows = 1 + len(variants)
        self._samples: list[Counted] = []
        empty = np.zeros((self._rows, 0))
        self.arrays = {"tokens": empty, "right": empty, "log_odds": empty}

    @property
    def samples(self) -> int:
        return self.arrays["right"].shape[1]

    def skip(self, sample: Sample) -> None:
        self._samples.append(_question(sample))

    def add(self, samples: list[Sample]) -> None:
        batch, expected = make_answered_batch(self._loaded, samples)
        found = {name: np.zeros((self._rows, len(samples))) for name in self.arrays}
        for row, logits in self._sharing.logits(batch):
            tokens = logits.argmax(-1)
            found["tokens"][row] = tokens[:, 0].cpu().numpy()
            found["right"][row] = self._matcher.matches(tokens, samples)
            found["log_odds"][row] = log_odds(logits, expected.tokens).cpu().numpy()
        self.arrays = {name: np.hstack([array, found[name]]) for name, array in self.arrays.items()}
        self._samples += [_question(sample) for sample in samples]

    def answers(self) -> Answers:
        """What was measured, in its own types."""
        tokens, right = self.arrays["tokens"].astype(np.int64), self.arrays["right"].astype(np.bool_)
        return Answers(self._samples, tokens, right, self.arrays["log_odds"])


def _question(sample: Sample) -> Counted:
    return Counted(sample.family, sample.answer, "", False, sample.group)
