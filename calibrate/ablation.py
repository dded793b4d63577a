"""The ablation run: accuracy after removing heads by score, against the unmasked model on the same samples.

Owns the loop over batches and configurations, and its saved state. Which heads are removed is `ablation_plans`', what
removal means is `treatments`', the figures are `ablation_results`'.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.ablation_plans import Configuration
from calibrate.ablation_results import Ablation, Row, compared, figures
from calibrate.accuracy import Judge, Right, batches
from calibrate.datasets import Dataset, Sample
from calibrate.errors import DatasetBroken
from calibrate.interrupts import Interrupts, held_back
from calibrate.loading import LoadedModel
from calibrate.processes import ALONE
from calibrate.progress import progress_bar
from calibrate.prompts import make_batch
from calibrate.replay import Pass
from calibrate.resume import SavedState
from calibrate.treatments import treated
from profiles.head_profile import HeadProfile
from profiles.provenance import git_commit, versions
from profiles.store import save


@dataclass(frozen=True)
class Run:
    """Settings of an ablation run.

    Attributes
    ----------
    out
        Where the results go; the state of an interrupted run lies beside it.
    batch_size
        Samples in one forward pass; changes nothing beyond float error.
    block_size
        Of text-only heads' image blocks; `None` for single image tokens.
    restart
        Discard the state of an interrupted run.
    save_every
        Seconds between two savings of the state.
    show_progress
        Whether to draw a bar on standard error.
    """

    out: Path
    batch_size: int = 8
    block_size: int | None = None
    restart: bool = False
    save_every: float = 10.0
    show_progress: bool = True


def ablate(
    loaded: LoadedModel, profile: HeadProfile, dataset: Dataset, chosen: Sequence[Configuration], run: Run
) -> Ablation:
    """Measure the model unmasked and under every configuration, and write the results.

    Continues an interrupted run of the same settings.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    DatasetBroken, AnswersAlike, FileUnwritable
    """
    state = SavedState(run.out, ALONE, _settings(loaded, profile, dataset, chosen, run))
    if run.restart:
        state.discard()
    saved = state.load()
    # One row for the baseline, one for each configuration; a column is a sample that all of them have answered.
    right: Right = np.zeros((1 + len(chosen), 0), np.bool_) if saved is None else saved["right"].astype(np.bool_)
    families: list[str] = []
    with held_back() as interrupts:
        done, saved_at = right.shape[1], time.monotonic()
        rest = _skipping(dataset, done, families)
        judge = Judge(loaded)
        try:
            with progress_bar("ablating", len(dataset), done, shown=run.show_progress) as advance:
                for samples in batches(rest, run.batch_size):
                    right = np.hstack([right, _answered(loaded, judge, samples, chosen, run, interrupts)])
                    advance(len(samples))
                    if time.monotonic() - saved_at >= run.save_every:
                        state.save({"right": right.astype(np.float64)})
                        saved_at = time.monotonic()
        finally:
            # Whatever ended the loop: columns are of whole batches. They are kept until the results are written.
            if right.shape[1]:
                state.save({"right": right.astype(np.float64)})
        interrupts.check()
        result = _results(loaded, profile, dataset, chosen, run, families, right)
        save(result, run.out)
        state.discard()
    return result


def _skipping(dataset: Dataset, done: int, families: list[str]) -> Iterable[Sample]:
    """Samples behind the first `done`; notes the family of every one on the way."""
    for index, sample in enumerate(dataset):
        families.append(sample.family)
        if index >= done:
            yield sample


def _answered(
    loaded: LoadedModel,
    judge: Judge,
    samples: list[Sample],
    chosen: Sequence[Configuration],
    run: Run,
    interrupts: Interrupts,
) -> Right:
    """Which samples are right, `(1 + configurations, samples)`; the baseline comes first."""
    first = [min(layer for layer, _ in one.heads) for one in chosen]
    interrupts.check()
    batch = make_batch(loaded, samples)
    kept = Pass(loaded, batch, first)
    rows = [judge.right(kept.logits.argmax(-1), samples)]
    for one, layer in zip(chosen, first, strict=True):
        interrupts.check()
        means = one.plan.compensation.means
        context = treated(loaded.model, one.treatments, compensation_means=means, block_size=run.block_size)
        with context as positions:
            positions.note(batch.inputs["input_ids"], batch.valid)
            rows.append(judge.right(kept.logits_from(layer).argmax(-1), samples))
    return np.stack(rows)


def _settings(
    loaded: LoadedModel, profile: HeadProfile, dataset: Dataset, chosen: Sequence[Configuration], run: Run
) -> dict[str, Any]:
    """All that the answers depend on beyond float error."""
    ref = dataset.ref()
    return {
        "model": loaded.ref.name,
        "revision": loaded.ref.revision,
        "profile": profile.digest,
        "dataset": ref.name,
        "dataset digest": ref.digest,
        "split": ref.split,
        "dataset settings": ref.settings,
        "treatment": chosen[0].how,
        "block size": run.block_size,
        "ranked by": chosen[0].plan.selection.rank_by,
        "heads": [[one.select, one.stage, one.k, one.seed, one.heads] for one in chosen],
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": loaded.device.type,
        "versions": versions("vhserve", "torch", "transformers"),
    }


def _results(
    loaded: LoadedModel,
    profile: HeadProfile,
    dataset: Dataset,
    chosen: Sequence[Configuration],
    run: Run,
    families: Sequence[str],
    right: Right,
) -> Ablation:
    if not families:
        raise DatasetBroken(
            f"dataset {dataset.name} has no sample to measure", expected="at least one", fix="check the dataset"
        )
    baseline = right[0]
    return Ablation(
        model=loaded.ref,
        profile_digest=profile.digest,
        dataset=dataset.ref(),
        samples=len(families),
        broken=list(dataset.broken),
        granularity=chosen[0].plan.granularity,
        rank_by=chosen[0].plan.selection.rank_by,
        treatment=chosen[0].how,
        block_size=run.block_size,
        baseline=figures(families, baseline),
        rows=[
            Row(
                select=one.select,
                stage=one.stage,
                k=one.k,
                share=one.share,
                seed=one.seed,
                heads=[list(head) for head in one.heads],
                figures=compared(families, baseline, masked),
            )
            for one, masked in zip(chosen, right[1:], strict=True)
        ],
        settings={
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "device": loaded.device.type,
            "batch_size": run.batch_size,
        },
        versions=versions("vhserve", "torch", "transformers", "numpy"),
        commit=git_commit(),
    )
