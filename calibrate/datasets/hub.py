"""Datasets of the Hugging Face Hub, and folders that its library `datasets` wrote.

Owns all that touches that library, which is optional (`pip install 'vhserve[datasets]'`): it is imported when the first
such dataset is opened. Knows no dataset, so not which columns there should be, save that pictures are in `image`.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calibrate.datasets.pictures import Base64Picture, LoadedPicture, Picture, load_picture
from calibrate.datasets.records import Record
from calibrate.errors import DatasetBroken, DatasetLibraryMissing, DatasetOffline, SplitUnknown

PICTURE: Final = "image"
_ID: Final = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


@dataclass(frozen=True)
class RowPicture:
    """The picture of a row; the first where there are several."""

    rows: Any
    number: int
    name: str = "in the dataset"

    def load(self) -> LoadedPicture:
        return load_picture(self._content())

    def digest(self) -> bytes:
        return hashlib.sha256(self._content()).digest()

    def _content(self) -> bytes:
        # As Arrow holds it: the library's own decoding would turn it its own way, and lose the file.
        value = self.rows[self.number].column(PICTURE)[0].as_py()
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str):
            return Base64Picture(self.name, value).content()
        held = value if isinstance(value, dict) else {}
        if held.get("bytes") is not None:
            content: bytes = held["bytes"]
            return content
        if held.get("path") is None:
            raise FileNotFoundError(self.name)
        return Path(held["path"]).read_bytes()


def is_id(source: str) -> bool:
    """Whether it may be a Hub id: `owner/name`, or `owner/name:configuration`."""
    return _ID.fullmatch(source) is not None


def is_saved(path: Path) -> bool:
    """Whether a folder holds what the library saves (`save_to_disk`), or the parquet files of a Hub repository."""
    return path.is_dir() and (_on_disk(path) or any(any(path.glob(part)) for part in ("*.parquet", "data/*.parquet")))


def _on_disk(path: Path) -> bool:
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def read_rows(source: str, split: str) -> Iterator[tuple[Record, Picture]]:
    """Rows of one split, each without its picture and with what loads it.

    Raises
    ------
    DatasetLibraryMissing, DatasetOffline, SplitUnknown, DatasetBroken
    """
    rows = _opened(source, split)
    if PICTURE not in rows.column_names:
        raise DatasetBroken(
            f"{source}: has no column {PICTURE!r}",
            expected=f"pictures in it, beside {', '.join(rows.column_names)}",
            fix="give the dataset's own files (docs/datasets.md)",
        )
    pictures, fields = rows.select_columns([PICTURE]).with_format("arrow"), rows.remove_columns([PICTURE])
    for number, row in enumerate(fields):
        yield Record(source, f"row {number}", number, row), RowPicture(pictures, number)


def _opened(source: str, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DatasetLibraryMissing(
            f"dataset {source} needs the library `datasets` ({error})",
            expected="it installed",
            fix="pip install 'vhserve[datasets]', or give the dataset's own files (docs/datasets.md)",
        ) from error
    path = Path(source).expanduser()
    try:
        if _on_disk(path):
            return _split_of(source, datasets.load_from_disk(str(path)), split)
        found = None if path.is_dir() else _ID.fullmatch(source)
        name, configuration = found.groups() if found else (str(path), None)
        return datasets.load_dataset(name, configuration, split=split)
    except (ConnectionError, FileNotFoundError) as error:
        raise DatasetOffline(
            f"dataset {source}: {error}",
            expected="a dataset in the local cache, or on a Hub within reach",
            fix="fetch it where there is a connection, or give the dataset's own files (docs/datasets.md)",
        ) from error
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        kind = SplitUnknown if "split" in str(error).casefold() else DatasetBroken
        raise kind(
            f"dataset {source}: {error}",
            expected=f"a configuration with the split {split!r}",
            fix="give --split, or owner/name:configuration",
        ) from error


def _split_of(source: str, loaded: Any, split: str) -> Any:
    if not isinstance(loaded, dict):
        return loaded
    if split not in loaded:
        raise SplitUnknown(
            f"dataset {source} has no split {split!r}", expected=" or ".join(loaded), fix="give one of these"
        )
    return loaded[split]
