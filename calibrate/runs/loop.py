"""The one loop over samples that every run uses: batches, progress, saved state, interrupts, processes, full devices.

Owns when the state is loaded, saved and discarded, and what ends a run. What is measured in a batch, and how it is
added to what is kept, is a `Measurement`, which each run supplies.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from calibrate.datasets import Dataset, Sample
from calibrate.errors import DatasetBroken
from calibrate.models.loading import LoadedModel
from calibrate.runs.failures import out_of_memory_as_user_error
from calibrate.runs.interrupts import Interrupts
from calibrate.runs.processes import SINGLE_PROCESS, Processes
from calibrate.runs.progress import progress_bar
from calibrate.runs.settings import RunSettings, run_identity
from calibrate.runs.state import Arrays, SavedState


class Measurement(ABC):
    """What a run keeps of the samples so far.

    Attributes
    ----------
    arrays
        All that is kept, by name; the state file holds these. A new `Measurement` has those of no sample.
    """

    arrays: Arrays

    @property
    @abstractmethod
    def samples(self) -> int:
        """Number of samples in `arrays`."""

    @abstractmethod
    def add(self, samples: list[Sample]) -> None:
        """Measure one batch and set `arrays` to what is kept with it; an error leaves `arrays` as they were."""

    def skip(self, sample: Sample) -> None:  # noqa: B027 - most need nothing of it
        """Take note of a sample that `arrays` of an interrupted run hold already; called in order, before any `add`."""


class ResumableLoop:
    """The loop of one run, and its state file.

    Parameters
    ----------
    settings
        Where the results go, the batch size and so on.
    identity
        What the results depend on beyond float error, besides model, dataset and versions: JSON values, by the words a
        user knows them by. A saved state is only continued when all of them are the same.
    processes
        Those that share the samples.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        dataset: Dataset,
        settings: RunSettings,
        identity: Mapping[str, Any],
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        self.loaded, self.dataset, self.settings, self.processes = loaded, dataset, settings, processes
        self._state = SavedState(settings.out, processes, run_identity(loaded, dataset) | dict(identity))

    def run(self, measurement: Measurement, description: str, interrupts: Interrupts) -> None:
        """Add this process's samples to a measurement, from where an interrupted run stopped.

        The state holds whole batches only. It is saved however the loop ends, and stays until `discard_state`.

        Parameters
        ----------
        description
            Stands in front of the progress bar.
        interrupts
            Checked before each batch and at the end.

        Raises
        ------
        Stopped
            By a signal; the state has been saved.
        StateMismatch
            The saved state belongs to other settings.
        OutOfDeviceMemory, DatasetBroken, FileUnwritable
            And what `measurement` raises.
        """
        if self.settings.restart:
            self._state.discard()
        if (saved := self._state.load()) is not None:
            measurement.arrays = saved
        try:
            self._add_batches(measurement, description, interrupts)
        finally:
            if measurement.samples:
                self._state.save(measurement.arrays)
        interrupts.check()
        if not self.processes.sum(np.array(measurement.samples, dtype=np.float64)):
            raise DatasetBroken(
                f"dataset {self.dataset.name} has no sample to measure",
                expected="at least one",
                fix="check the dataset",
            )

    def discard_state(self) -> None:
        """Remove the state file: called when the results are written, in every process."""
        self.processes.wait()
        self._state.discard()

    def _add_batches(self, measurement: Measurement, description: str, interrupts: Interrupts) -> None:
        settings, processes, done = self.settings, self.processes, measurement.samples
        total = len(range(processes.rank, len(self.dataset), processes.world_size))
        shown, saved_at = settings.show_progress and processes.is_main, time.monotonic()
        with progress_bar(description, total, done, shown=shown) as advance:
            for samples in batches(self._remaining(measurement, done), settings.batch_size):
                interrupts.check()
                with out_of_memory_as_user_error(self.loaded, settings.batch_size):
                    measurement.add(samples)
                advance(len(samples))
                if time.monotonic() - saved_at >= settings.save_every:
                    self._state.save(measurement.arrays)
                    saved_at = time.monotonic()

    def _remaining(self, measurement: Measurement, done: int) -> Iterator[Sample]:
        """This process's samples behind the first `done`, which `measurement` skips."""
        own = (sample for index, sample in enumerate(self.dataset) if self.processes.owns(index))
        for number, sample in enumerate(own):
            if number < done:
                measurement.skip(sample)
            else:
                yield sample


def batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Cut samples into lists of `size`; the last may be shorter."""
    rest = iter(samples)
    while batch := list(islice(rest, size)):
        yield batch
