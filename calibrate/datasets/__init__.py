"""Datasets that samples are read from; each knows its own files.

Owns how a name becomes a dataset; does not know a model. A new one is a file with a `Dataset` class here, an entry in
`DATASETS` (made on the spot) or `BENCHMARKS` (read from its files), and a test.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from calibrate.datasets.base import Dataset, DividedDataset
from calibrate.datasets.benchmark import Benchmark
from calibrate.datasets.mmbench import Mmbench, MmbenchCircular
from calibrate.datasets.pointqa import PointQA
from calibrate.datasets.pope import Pope
from calibrate.datasets.q_bench import QBench
from calibrate.datasets.question_files import READERS, QuestionFile
from calibrate.datasets.sample import Sample
from calibrate.datasets.seed_bench import SeedBench
from calibrate.datasets.splits import MEASURING
from calibrate.datasets.synthetic.dataset import Synthetic
from calibrate.errors import DatasetUnknown
from profiles.suggestions import did_you_mean

__all__ = ["BENCHMARKS", "DATASETS", "Benchmark", "Dataset", "DividedDataset", "Sample", "check_name", "open_dataset"]

DATASETS: Final[Mapping[str, Callable[..., DividedDataset]]] = {"synthetic": Synthetic}
"""Built-in datasets by name; called with the keyword arguments of `open_dataset`."""

BENCHMARKS: Final[Mapping[str, type[Benchmark]]] = {
    kind.NAME: kind for kind in (PointQA, Mmbench, MmbenchCircular, Pope, SeedBench, QBench)
}
"""Published datasets by name; called with where they are and the keyword arguments of `open_dataset`."""


def check_name(name_or_path: str) -> None:
    """Refuse what names no dataset, without reading any file of one.

    Raises
    ------
    DatasetUnknown
    """
    _maker(name_or_path)


def open_dataset(
    name_or_path: str,
    *,
    samples: int,
    seed: int,
    split: str = MEASURING,
    families: Sequence[str] | None = None,
) -> DividedDataset:
    """Open a dataset.

    Parameters
    ----------
    name_or_path
        One of `DATASETS`; a `.jsonl`, `.csv` or `.parquet` file (see `QuestionFile`); or one of `BENCHMARKS`, a colon,
        and where it is: a folder or file, such as `pope:/data/pope`, or a Hub id, such as `pope:lmms-lab/POPE` (see
        `Benchmark`, and docs/datasets.md for the files of each).
    samples
        How many at most.
    seed
        Of the choice of samples.
    split
        One half of the dataset's pictures, `choosing` or `measuring`; `all`; or the name of a published split, which is
        taken whole (see `calibrate.datasets.splits`).
    families
        Only these question families; all by default.

    Raises
    ------
    DatasetUnknown, DatasetBroken, FileUnreadable, FamilyUnknown, SplitUnknown, SamplesTooFew
    DatasetLibraryMissing, DatasetOffline
        Of a dataset on the Hub; the first of a Parquet file, too.
    """
    if samples < 1 or seed < 0:
        raise ValueError(f"samples must be positive and seed not negative, but are {samples} and {seed}")
    return _maker(name_or_path)(samples=samples, seed=seed, split=split, families=families)


def _maker(name_or_path: str) -> Callable[..., DividedDataset]:
    if make := DATASETS.get(name_or_path):
        return make
    name, _, source = name_or_path.partition(":")
    if (kind := BENCHMARKS.get(name)) and source:
        return partial(kind, source)
    if (path := Path(name_or_path)).suffix in READERS:
        return partial(QuestionFile, path)
    if kind:
        raise DatasetUnknown(
            f"dataset {name!r} has to be read from its files",
            expected=f"{name}:PATH{f' or {name}:{kind.HUB}' if kind.HUB else ''}",
            fix="say where they are (docs/datasets.md)",
        )
    raise DatasetUnknown(
        f"unknown dataset {name_or_path!r}",
        expected=f"{', '.join(DATASETS)}, a .jsonl, .csv or .parquet file, or {'|'.join(BENCHMARKS)}:PATH",
        fix=did_you_mean(name, [*DATASETS, *BENCHMARKS], "give one of these"),
    )
