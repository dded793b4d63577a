"""The calibration run: what is measured of each batch of samples, and the head profile at the end.

Owns the run's settings and what its results depend on. The loop is `calibrate.runs.loop`; formulas, prompts and the
hooks that read attention rows are elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from calibrate.datasets import Dataset, Sample
from calibrate.models.batches import Batch, make_answered_batch, make_batch
from calibrate.models.loading import LoadedModel
from calibrate.runs.failures import non_finite_attention
from calibrate.runs.interrupts import defer_signals
from calibrate.runs.loop import Measurement, ResumableLoop
from calibrate.runs.processes import SINGLE_PROCESS, Processes
from calibrate.runs.settings import RunSettings, execution
from calibrate.scoring.attention_rows import AttentionRows, attention_rows
from calibrate.scoring.effects import head_effects
from calibrate.scoring.scorers import active_scorers
from calibrate.scoring.scorers.base import EPSILON, BatchSignals
from calibrate.scoring.sums import Sums
from profiles.head_profile import HeadProfile, ScoreFormula
from profiles.names import LayerFunction
from profiles.provenance import git_commit, versions
from profiles.store import save


@dataclass(frozen=True)
class CalibrationSettings(RunSettings):
    """Settings of a calibration run.

    Attributes
    ----------
    seed
        Seed that the dataset was opened with.
    layer_function
        The factor `f` of the head score (see `calibrate.scoring.scorers.score`).
    effects
        Measure effects of treatments too, which takes a gradient.
    block_size
        Tokens of an image block that text-only heads would not see, for their effects; None for single image tokens.
    """

    seed: int = 0
    layer_function: LayerFunction = "inverse"
    effects: bool = False
    block_size: int | None = None


def calibrate(
    loaded: LoadedModel, dataset: Dataset, run: CalibrationSettings, processes: Processes = SINGLE_PROCESS
) -> HeadProfile:
    """Measure every head on every sample and write the head profile.

    Continues an interrupted run of the same settings; the result is then the same, to the last bit for the same batch
    size. Ctrl-C, SIGTERM, out-of-memory errors and other exceptions lose no finished batch.

    Returns
    -------
    The profile, in every process; the first has written it.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    OutOfDeviceMemory, DatasetBroken, NotFiniteAttention, FileUnwritable
    """
    loop = ResumableLoop(loaded, dataset, run, _identity(loaded, dataset, run, processes), processes)
    with defer_signals() as interrupts:
        with attention_rows(loaded) as read:
            measurement = _HeadSums(loaded, run, read)
            loop.run(measurement, "calibrating", interrupts)
        arrays = {name: processes.sum(array) for name, array in measurement.arrays.items()}
        total = Sums(arrays, measurement.scorers)
        profile = _profile(loaded, dataset, run, processes, total)
        if processes.is_main:
            save(profile, run.out)
        loop.discard_state()
    return profile


class _HeadSums(Measurement):
    """Sums of what each head does in each sample; `read` gives the attention rows of a batch."""

    def __init__(self, loaded: LoadedModel, run: CalibrationSettings, read: Callable[[Batch], AttentionRows]) -> None:
        self._loaded, self._run, self._read = loaded, run, read
        self.scorers = active_scorers(effects=run.effects)
        self.arrays = Sums.empty(loaded.geometry, self.scorers).arrays

    @property
    def samples(self) -> int:
        return Sums(self.arrays, self.scorers).samples

    def add(self, samples: list[Sample]) -> None:
        run, loaded = self._run, self._loaded
        batch = make_batch(loaded, samples)
        rows = self._read(batch)
        effects = None
        if any("answer_gradient" in scorer.needs for scorer in self.scorers):
            with head_effects(loaded, run.block_size) as measure:
                answered, expected = make_answered_batch(loaded, samples, plain=batch)
                effects = measure(answered, expected.tokens)
        signals = BatchSignals(rows.rows, batch.image, batch.box, effects=effects, layer_function=run.layer_function)
        sums = Sums(self.arrays, self.scorers).plus(batch, rows, signals)
        if not sums.finite():
            raise non_finite_attention(loaded)
        self.arrays = sums.arrays


def _identity(loaded: LoadedModel, dataset: Dataset, run: CalibrationSettings, processes: Processes) -> dict[str, Any]:
    """What the sums depend on, besides model and dataset; the batch size is not among it."""
    scorers = active_scorers(effects=run.effects)
    grouped = loaded.geometry.group_size > 1
    return {
        "samples": len(dataset),
        "seed": run.seed,
        "layer function": run.layer_function,
        "epsilon": EPSILON,
        "effects": run.effects,
        "block size": run.block_size,
        "rankings": {scorer.name: scorer.tables for scorer in scorers},
        **({"measured by KV group": [one.name for one in scorers if one.measures_groups]} if grouped else {}),
        "processes": processes.world_size,
    }


def _profile(
    loaded: LoadedModel, dataset: Dataset, run: CalibrationSettings, processes: Processes, total: Sums
) -> HeadProfile:
    return HeadProfile(
        model=loaded.ref,
        geometry=loaded.geometry,
        dataset=dataset.ref(),
        samples=total.samples,
        samples_skipped=len(dataset.broken),
        samples_with_box=total.with_box,
        seed=run.seed,
        formula=ScoreFormula(name="layer*weight*concentration", layer_function=run.layer_function, epsilon=EPSILON),
        settings={**execution(loaded), "batch_size": run.batch_size, "processes": processes.world_size},
        versions=versions("vhserve", "torch", "transformers", "numpy", "pillow"),
        commit=git_commit(),
        rankings=total.rankings(run.block_size),
        mean_output=total.mean_output(),
    )
