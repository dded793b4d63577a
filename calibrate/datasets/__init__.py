"""Datasets that samples are read from; each knows its own files, none knows a model.

Owns how a name becomes a dataset. A new one is a file with a `Dataset` class here, an entry in `DATASETS` and a test.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from calibrate.datasets.base import Dataset
from calibrate.datasets.jsonl import JsonLines
from calibrate.datasets.sample import Sample
from calibrate.datasets.synthetic import Synthetic
from calibrate.errors import DatasetUnknown

__all__ = ["DATASETS", "Dataset", "Sample", "open_dataset"]

DATASETS: Final[Mapping[str, Callable[..., Dataset]]] = {"synthetic": Synthetic}
"""Built-in datasets by name; called with the keyword arguments of `open_dataset`."""


def open_dataset(
    name_or_path: str,
    *,
    samples: int,
    seed: int,
    split: str | None = None,
    families: Sequence[str] | None = None,
) -> Dataset:
    """Open a dataset.

    Parameters
    ----------
    name_or_path
        One of `DATASETS`, or a `.jsonl` file (see `JsonLines`).
    samples
        How many at most.
    seed
        Of the choice of samples.
    split
        Where the dataset has splits.
    families
        Only these question families; all by default.

    Raises
    ------
    DatasetUnknown, DatasetBroken, FileUnreadable, FamilyUnknown, SplitUnknown
    """
    if samples < 1 or seed < 0:
        raise ValueError(f"samples must be positive and seed not negative, but are {samples} and {seed}")
    if make := DATASETS.get(name_or_path):
        return make(samples=samples, seed=seed, split=split, families=families)
    if name_or_path.endswith(".jsonl"):
        return JsonLines(Path(name_or_path), samples=samples, seed=seed, split=split, families=families)
    raise DatasetUnknown(
        f"unknown dataset {name_or_path!r}",
        expected=f"{', '.join(DATASETS)} or a .jsonl file",
        fix="give one of these",
    )
