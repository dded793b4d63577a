"""The analysis run: every sample once through the model, for attention rows, logit lens and answer together.

Owns what is measured of each batch and what the results depend on. The loop is `calibrate.runs.loop`; formulas, hooks
and sums are elsewhere.
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from calibrate.analysis.lens import Lens, logit_lens
from calibrate.analysis.tallies import FOLDS, SCORED, JudgedBatch, Measured, Tally
from calibrate.datasets import Dataset, Sample
from calibrate.datasets.families import Right
from calibrate.masking.accuracy import AnswerMatcher
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.batches import Batch, make_answered_batch, make_batch
from calibrate.models.loading import LoadedModel
from calibrate.runs.failures import non_finite_attention
from calibrate.runs.interrupts import defer_signals
from calibrate.runs.loop import Measurement, ResumableLoop
from calibrate.runs.settings import RunSettings
from calibrate.scoring.attention_rows import AttentionRows, attention_rows
from calibrate.scoring.scorers.base import EPSILON, BatchSignals
from profiles.ranking import ALL


def analysis_loop(loaded: LoadedModel, dataset: Dataset, run: RunSettings) -> ResumableLoop:
    """The loop of an analysis; whoever has written the results discards its state."""
    return ResumableLoop(loaded, dataset, run, {"samples": len(dataset), "folds": FOLDS, "epsilon": EPSILON})


def measure(loop: ResumableLoop) -> Measured:
    """Run every sample once; continues an interrupted run of the same settings.

    The state is kept when all samples are done, because what follows may be interrupted too.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    DatasetBroken, OutOfDeviceMemory, NotFiniteAttention, FileUnwritable
    """
    loaded = loop.loaded
    with defer_signals() as interrupts, attention_rows(loaded) as rows_of, logit_lens(loaded) as read:
        measurement = _Tallies(loaded, lambda batch: read(batch, rows_of))
        loop.run(measurement, "analysing", interrupts)
    return Measured(measurement.tally)


class _Tallies(Measurement):
    """A `Tally`; `read` gives the logit lens and the attention rows of a batch."""

    def __init__(self, loaded: LoadedModel, read: Callable[[Batch], tuple[Lens, AttentionRows]]) -> None:
        self._loaded, self._read, self._matcher = loaded, read, AnswerMatcher(loaded)
        empty = Tally.empty(loaded.geometry)
        self._families, self.arrays = empty.families, empty.arrays

    @property
    def tally(self) -> Tally:
        """The sums so far; the state file holds `arrays`, but not the names of the families."""
        return Tally(self._families, self.arrays)

    @property
    def samples(self) -> int:
        return self.tally.samples

    def skip(self, sample: Sample) -> None:
        if sample.family not in self._families:
            self._families.append(sample.family)

    def add(self, samples: list[Sample]) -> None:
        batch = make_batch(self._loaded, samples)
        lens, rows = self._read(batch)
        signals = BatchSignals(rows.rows, batch.image, batch.box)
        scores = {scorer.name: scorer.values(signals)[ALL] for scorer in SCORED}
        tokens = lens.tokens.tolist()
        options = [self._matcher.option_of(token, sample) for token, sample in zip(tokens, samples, strict=True)]
        answers = JudgedBatch(
            [sample.id for sample in samples],
            [sample.family for sample in samples],
            self._right(samples, lens.tokens).tolist(),
            [option is not None for option in options],
        )
        tally = self.tally.plus(answers, scores, batch.has_box.tolist(), lens.ranks.cpu().numpy().astype(np.float64))
        if not tally.finite():
            raise non_finite_attention(self._loaded)
        self._families, self.arrays = tally.families, tally.arrays

    def _right(self, samples: list[Sample], tokens: Tensor) -> Right:
        """Whether the answers are right; those that their first token does not tell take a pass of their own."""
        if any(self._loaded.answers.forced(sample) for sample in samples):
            batch, _ = make_answered_batch(self._loaded, samples)
            tokens = next_token_logits(self._loaded, batch).argmax(-1)
        return self._matcher.matches(tokens, samples)
