"""The calibration run: samples in batches through the tapped model, sums, saved state, and the head profile at the end.

Owns the loop, its settings and what is done when it is stopped. Formulas, prompts, the tap and the state file are
elsewhere.
"""

import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from calibrate.datasets import Dataset
from calibrate.errors import DatasetBroken
from calibrate.masking.accuracy import AnswerMatcher
from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import make_batch
from calibrate.runs.failures import not_finite, telling_full_devices
from calibrate.runs.interrupts import Interrupts, held_back
from calibrate.runs.processes import ALONE, Processes
from calibrate.runs.progress import progress_bar
from calibrate.runs.settings import RunSettings, same_run
from calibrate.runs.state import SavedState
from calibrate.scoring.attention_rows import attention_rows
from calibrate.scoring.effects import head_effects
from calibrate.scoring.scores import EPSILON, LayerFunction, score_rows
from calibrate.scoring.sums import Sums
from profiles.head_profile import HeadProfile, ScoreFormula
from profiles.provenance import git_commit, versions
from profiles.store import save


@dataclass(frozen=True)
class Run(RunSettings):
    """Settings of a calibration run.

    Attributes
    ----------
    seed
        That the dataset was opened with.
    layer_function
        f of the head score.
    effects
        Measure effects of treatments too, which takes a gradient; needs answers that the model's first token tells.
    block_size
        Of the image blocks that text-only heads would not see, for their effects; None for single image tokens.
    """

    seed: int = 0
    layer_function: LayerFunction = "inverse"
    effects: bool = False
    block_size: int | None = None


def calibrate(loaded: LoadedModel, dataset: Dataset, run: Run, processes: Processes = ALONE) -> HeadProfile:
    """Measure every head on every sample and write the head profile.

    Continues an interrupted run of the same settings; the result is then the same, to the last bit for the same batch
    size. Nothing measured is lost by Ctrl-C, SIGTERM, a full device or an exception.

    Returns
    -------
    The profile, in every process; the first has written it.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    AnswersAlike
        `effects` are asked for, and a sample's answer begins as another of its options does.
    OutOfDeviceMemory, DatasetBroken, NotFiniteAttention, FileUnwritable
    """
    state = SavedState(run.out, processes, _settings(loaded, dataset, run, processes))
    if run.restart:
        state.discard()
    saved = state.load()
    sums = Sums.empty(loaded.geometry) if saved is None else Sums(saved)
    with held_back() as interrupts:
        try:
            _measure(loaded, dataset, run, processes, sums, state, interrupts)
        finally:
            # Whatever ended the loop: sums hold whole batches only. What was finished is kept too, until all have.
            if sums.samples:
                state.save(sums.arrays)
        interrupts.check()
        total = Sums({name: processes.total(array) for name, array in sums.arrays.items()})
        profile = _profile(loaded, dataset, run, processes, total)
        if processes.first:
            save(profile, run.out)
        processes.wait()
        state.discard()
    return profile


def _measure(
    loaded: LoadedModel,
    dataset: Dataset,
    run: Run,
    processes: Processes,
    sums: Sums,
    state: SavedState,
    interrupts: Interrupts,
) -> None:
    """Add this process's samples to `sums`, from where it stands."""
    own = (sample for index, sample in enumerate(dataset) if processes.owns(index))
    done = sums.samples
    total = len(range(processes.rank, len(dataset), processes.world))
    rest = islice(own, done, None)
    saved_at = time.monotonic()
    shown = run.show_progress and processes.first
    matcher = AnswerMatcher(loaded)
    with attention_rows(loaded) as read, progress_bar("calibrating", total, done, shown=shown) as advance:
        while samples := list(islice(rest, run.batch_size)):
            interrupts.check()
            # Before anything of the batch is measured: an answer that its first token does not tell has no log-odds.
            answers = [matcher.distinct_first_token(sample) for sample in samples] if run.effects else []
            with telling_full_devices(loaded, run.batch_size):
                batch = make_batch(loaded, samples)
                rows = read(batch)
                effects = None
                if run.effects:
                    with head_effects(loaded, run.block_size) as measure:
                        effects = measure(batch, torch.tensor(answers, device=loaded.device))
                scores = score_rows(rows.rows, batch.image, batch.box, run.layer_function)
                more = sums.plus(batch, scores, rows, effects)
            if not more.finite():
                raise not_finite(loaded)
            sums.arrays = more.arrays
            advance(len(samples))
            if time.monotonic() - saved_at >= run.save_every:
                state.save(sums.arrays)
                saved_at = time.monotonic()


def _settings(loaded: LoadedModel, dataset: Dataset, run: Run, processes: Processes) -> dict[str, Any]:
    """All that the sums depend on beyond float error; the batch size is not among them."""
    return same_run(loaded, dataset) | {
        "samples": len(dataset),
        "seed": run.seed,
        "layer function": run.layer_function,
        "epsilon": EPSILON,
        "effects": run.effects,
        "block size": run.block_size,
        "processes": processes.world,
    }


def _profile(loaded: LoadedModel, dataset: Dataset, run: Run, processes: Processes, total: Sums) -> HeadProfile:
    if not total.samples:
        raise DatasetBroken(
            f"dataset {dataset.ref().name} has no sample to measure", expected="at least one", fix="check the dataset"
        )
    return HeadProfile(
        model=loaded.ref,
        geometry=loaded.geometry,
        dataset=dataset.ref(),
        samples=total.samples,
        samples_skipped=len(dataset.broken),
        samples_with_box=total.with_box,
        seed=run.seed,
        formula=ScoreFormula(name="layer*weight*concentration", layer_function=run.layer_function, epsilon=EPSILON),
        settings={
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "device": loaded.device.type,
            "batch_size": run.batch_size,
            "processes": processes.world,
        },
        versions=versions("vhserve", "torch", "transformers", "numpy", "pillow"),
        commit=git_commit(),
        rankings=total.rankings(run.block_size, effects=run.effects),
        mean_output=total.mean_output(),
    )
