"""Runs of the analysis over a model and a dataset, and a dataset in another order. Judges nothing."""

from pathlib import Path

from calibrate.analysis.measure import analysis_loop, measure
from calibrate.analysis.tallies import Measured
from calibrate.datasets import Dataset, open_dataset
from calibrate.runs.settings import RunSettings

SAMPLES = 18


def dataset(samples=SAMPLES):
    return open_dataset("synthetic", samples=samples, seed=3)


def run(loaded, given, folder, **settings) -> Measured:
    loop = analysis_loop(loaded, given, RunSettings(folder / "analysis.json", show_progress=False, **settings))
    return measure(loop)


def folder_of(path: Path, name: str) -> Path:
    (path / name).mkdir()
    return path / name


class Reversed(Dataset):
    """Another dataset's samples, the last first."""

    def __init__(self, other: Dataset) -> None:
        super().__init__(other.name)
        self._other = other

    def ref(self):
        return self._other.ref()

    def __len__(self):
        return len(self._other)

    def read(self, index):
        return self._other.read(len(self) - 1 - index)
