"""Published datasets in their official formats: what their readers share.

Owns finding a dataset's files in a folder, or its rows on the Hub, and the digest of what was read. Knows no format: a
reader says which files, records and questions there are, in a file of its own.
"""

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from calibrate.datasets import hub
from calibrate.datasets.pictures import FilePicture, Picture
from calibrate.datasets.questions import Question, Questions
from calibrate.datasets.records import Record, read_bytes
from calibrate.datasets.splits import SPLITS
from calibrate.errors import DatasetBroken, DatasetUnknown, SplitUnknown
from profiles.errors import FileUnreadable
from profiles.suggestions import did_you_mean


class Benchmark(Questions):
    """A published dataset.

    Parameters
    ----------
    source
        Folder with the dataset's files, one of its files, a folder that the library `datasets` wrote, or a Hub id
        `owner/name`, with `:configuration` where it has several.
    samples, seed, families
        As for `Questions`.
    split
        One of `calibrate.datasets.splits.SPLITS`, of the first of `PUBLISHED`; or one of `PUBLISHED`, which is taken
        whole.

    Raises
    ------
    FileUnreadable, DatasetUnknown, DatasetBroken, FamilyUnknown, SplitUnknown, SamplesTooFew
    DatasetLibraryMissing, DatasetOffline
        Of a dataset on the Hub.
    """

    NAME: ClassVar[str]
    FILES: ClassVar[tuple[str, ...]]
    """Patterns of file names in the folder; `{split}` and `{SPLIT}` stand for the split. The first match is taken."""
    SEVERAL: ClassVar[bool] = False
    """Whether all files that match are taken together; otherwise there must be one."""
    PICTURES: ClassVar[tuple[str, ...]] = ()
    """Subfolders where pictures may lie, beside the folder itself."""
    PUBLISHED: ClassVar[tuple[str, ...]] = ()
    """Splits that are published; the first is taken where none is named."""
    HUB: ClassVar[str | None] = None
    """A Hub id that has it with its pictures."""
    HUB_SPLIT: ClassVar[str] = "test"

    def __init__(
        self, source: str, *, samples: int, seed: int, split: str, families: Sequence[str] | None = None
    ) -> None:
        path, digest = Path(source).expanduser(), hashlib.sha256()
        self._counted = Counter[str]()
        published = None if split in SPLITS else split
        questions: list[Question] = []
        if path.exists() and not hub.is_saved(path):
            if path.is_dir() and published is None and self.PUBLISHED:
                published = self.PUBLISHED[0]
            files = self.files(path, published)
            for file in files:
                raw = read_bytes(file)
                digest.update(raw)
                for record in self.records(file, raw, published):
                    if not self._leaves_out(record):
                        questions += self.questions(record, self.picture(record, file.parent))
            source_name = ",".join(file.name for file in files)
        elif path.exists() or hub.is_id(source):
            source_name, published = path.name if path.exists() else source, published or self.HUB_SPLIT
            for record, picture in self._rows(source, published):
                digest.update(json.dumps(record.data, sort_keys=True, default=str).encode())
                if not self._leaves_out(record):
                    questions += self.questions(record, picture)
        else:
            expected = f"{self._wanted('…')} in a folder{f', or a Hub id such as {self.HUB}' if self.HUB else ''}"
            raise FileUnreadable(f"{source}: no such file or folder", expected=expected, fix="check the path")
        if not questions and self._counted:
            raise DatasetBroken(
                f"{source}: has nothing to ask: {'; '.join(self._counts())}",
                expected="at least one other record",
                fix="check the path (docs/datasets.md)",
            )
        super().__init__(
            self.NAME,
            questions,
            digest=f"sha256:{digest.hexdigest()}",
            samples=samples,
            seed=seed,
            split=split,
            published=published,
            families=families,
            source=source_name,
        )
        self.notes += [f"dataset {self.NAME}: {line}" for line in self._counts()]

    @abstractmethod
    def records(self, file: Path, raw: bytes, split: str | None) -> Iterator[Record]:
        """The records of one file of the official format."""

    @abstractmethod
    def questions(self, record: Record, picture: Picture) -> Iterator[Question]:
        """The questions of one record, of a file or of the Hub."""

    def left_out(self, record: Record) -> str | None:
        """Why a record is not among those to be asked, in the plural; `None` where it is."""
        return None

    def count(self, what: str) -> None:
        """Count a record of which `what` is to be noted."""
        self._counted[what] += 1

    def picture(self, record: Record, folder: Path) -> Picture:
        """The picture that a file's record names, where `folder` is the file's."""
        return self.beside(self.picture_name(record), folder)

    def picture_name(self, record: Record) -> str:
        """What a file's record calls its picture."""
        return record.text("image")

    def beside(self, name: str, folder: Path) -> FilePicture:
        """A picture in the file's folder, one of `PICTURES` below it or below the folder above."""
        below = (folder, folder.parent)
        return FilePicture(name, (folder, *(above / part for above in below for part in self.PICTURES)))

    def _leaves_out(self, record: Record) -> bool:
        if (why := self.left_out(record)) is not None:
            self.count(f"left out: {why}")
        return why is not None

    def _counts(self) -> list[str]:
        return [f"{number} record{'s' if number > 1 else ''} {what}" for what, number in self._counted.items()]

    def _wanted(self, split: str | None) -> str:
        return " or ".join(_filled(pattern, split) for pattern in self.FILES)

    def files(self, path: Path, split: str | None) -> list[Path]:
        """The dataset's files in a folder, or the one that `path` is.

        Raises
        ------
        FileUnreadable, DatasetUnknown, SplitUnknown
        """
        if split is not None and split not in self.PUBLISHED:
            raise SplitUnknown(
                f"dataset {self.NAME} has no split {split!r}",
                expected=f"one of {', '.join((*SPLITS, *self.PUBLISHED))}",
                fix=did_you_mean(split, (*SPLITS, *self.PUBLISHED), "give one of these"),
            )
        if path.is_file():
            return [path]
        for pattern in self.FILES:
            found = sorted(path.glob(_filled(pattern, split)))
            if len(found) > 1 and not self.SEVERAL:
                names = ", ".join(file.name for file in found)
                raise DatasetUnknown(
                    f"{path}: has several files of {self.NAME}",
                    expected=f"one of {names}",
                    fix="give the file",
                )
            if found:
                return found
        raise FileUnreadable(
            f"{path}: has no file of {self.NAME}", expected=self._wanted(split), fix="check the path (docs/datasets.md)"
        )

    def _rows(self, source: str, split: str) -> Iterator[tuple[Record, Picture]]:
        if self.HUB is None:
            raise DatasetUnknown(
                f"dataset {self.NAME} is not on the Hub with its pictures, and there is no file {source}",
                expected=f"a folder with {self._wanted(self.PUBLISHED[0] if self.PUBLISHED else None)}",
                fix="give the dataset's own files (docs/datasets.md)",
            )
        return hub.read_rows(source, split)


def _filled(pattern: str, split: str | None) -> str:
    return pattern.format(split=split, SPLIT=str(split).upper())
