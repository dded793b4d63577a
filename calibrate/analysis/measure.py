"""The analysis run: every sample once through the tapped model, for attention rows, logit lens and answer together.

Owns the loop, its settings and what is done when it is stopped. Formulas, taps, sums and the state file are elsewhere.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from calibrate.analysis.lens import logit_lens
from calibrate.analysis.tallies import FOLDS, Answers, Measured, Tally
from calibrate.datasets import Dataset, Sample
from calibrate.errors import DatasetBroken
from calibrate.masking.accuracy import AnswerMatcher, batches
from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import make_batch
from calibrate.runs.failures import not_finite, telling_full_devices
from calibrate.runs.interrupts import held_back
from calibrate.runs.processes import ALONE
from calibrate.runs.progress import progress_bar
from calibrate.runs.settings import RunSettings, same_run
from calibrate.runs.state import SavedState
from calibrate.scoring.attention_rows import attention_rows
from calibrate.scoring.scores import EPSILON, score_rows


def saved_state(loaded: LoadedModel, dataset: Dataset, run: RunSettings) -> SavedState:
    """The state of the run; whoever has written the results discards it."""
    return SavedState(run.out, ALONE, _settings(loaded, dataset))


def measure(loaded: LoadedModel, dataset: Dataset, run: RunSettings) -> Measured:
    """Run every sample once; continues an interrupted run of the same settings.

    The state is kept when all samples are done, for what follows may be stopped too.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    DatasetBroken, AnswersAlike, OutOfDeviceMemory, NotFiniteAttention, FileUnwritable
    """
    state = saved_state(loaded, dataset, run)
    if run.restart:
        state.discard()
    saved = state.load()
    tally = Tally.empty(loaded.geometry)
    seen: dict[str, None] = {}
    done = 0 if saved is None else len(saved["family"])
    rest = _behind(dataset, done, seen)
    matcher, saved_at = AnswerMatcher(loaded), time.monotonic()
    with held_back() as interrupts, attention_rows(loaded) as rows_of, logit_lens(loaded) as read:
        try:
            with progress_bar("analysing", len(dataset), done, shown=run.show_progress) as advance:
                for samples in batches(rest, run.batch_size):
                    if saved is not None and not tally.samples:
                        # The families of the samples before are known only now that these have been gone through.
                        tally = _taken_up(saved, seen, samples)
                    interrupts.check()
                    tally = _plus(loaded, matcher, tally, samples, rows_of, read, run)
                    advance(len(samples))
                    if time.monotonic() - saved_at >= run.save_every:
                        state.save(tally.arrays)
                        saved_at = time.monotonic()
                if saved is not None and not tally.samples:
                    tally = _taken_up(saved, seen, [])
        finally:
            if tally.samples:
                state.save(tally.arrays)
        interrupts.check()
    if not tally.samples:
        raise DatasetBroken(
            f"dataset {dataset.name} has no sample to measure", expected="at least one", fix="check the dataset"
        )
    return Measured(tally)


def _behind(dataset: Dataset, done: int, seen: dict[str, None]) -> Iterator[Sample]:
    """Samples behind the first `done`; notes the families of all on the way."""
    for index, sample in enumerate(dataset):
        seen.setdefault(sample.family)
        if index >= done:
            yield sample


def _taken_up(saved: dict[str, Any], seen: dict[str, None], samples: list[Sample]) -> Tally:
    """The saved tally. `seen` holds its families and perhaps new ones, of `samples`, behind them."""
    return Tally(list(seen)[: len(saved["samples"])], saved)


def _plus(
    loaded: LoadedModel,
    matcher: AnswerMatcher,
    tally: Tally,
    samples: list[Sample],
    rows_of: Any,
    read: Any,
    run: RunSettings,
) -> Tally:
    with telling_full_devices(loaded, run.batch_size):
        batch = make_batch(loaded, samples)
        lens, rows = read(batch, rows_of)
        scores = score_rows(rows.rows, batch.image, batch.box)
    right = matcher.matches(lens.tokens, samples)
    said = [matcher.option_of(token, sample) for token, sample in zip(lens.tokens.tolist(), samples, strict=True)]
    answers = Answers(
        [sample.id for sample in samples],
        [sample.family for sample in samples],
        right.tolist(),
        [one is not None for one in said],
    )
    more = tally.plus(answers, scores, batch.has_box.tolist(), lens.ranks.cpu().numpy().astype(np.float64))
    if not more.finite():
        raise not_finite(loaded)
    return more


def _settings(loaded: LoadedModel, dataset: Dataset) -> dict[str, Any]:
    """All that the sums depend on beyond float error; the batch size is not among them."""
    return same_run(loaded, dataset) | {"samples": len(dataset), "folds": FOLDS, "epsilon": EPSILON}
