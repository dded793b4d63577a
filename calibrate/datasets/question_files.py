"""A user's own questions in one file: JSON lines, CSV or Parquet, images beside it or in it.

Owns which files are datasets of this kind, and how each becomes records. What a record may hold is in
`question_fields`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from calibrate.datasets.json_files import json_lines
from calibrate.datasets.parquet import ParquetTable
from calibrate.datasets.question_fields import FIELDS, OPTIONAL, REQUIRED, from_cells, question_of, with_options
from calibrate.datasets.questions import Question, Questions
from calibrate.datasets.records import printable, read_bytes
from calibrate.datasets.splits import SPLITS
from calibrate.datasets.tables import comma_separated
from calibrate.datasets.written_pictures import picture_from_text
from calibrate.errors import DatasetBroken, SplitUnknown
from profiles.suggestions import did_you_mean

Read = tuple[list[Question], list[str]]
"""Questions of a file, and the names of columns that it has besides."""


class QuestionFile(Questions):
    """Samples of a `.jsonl`, `.csv` or `.parquet` file.

    Each record has `image`, `question` and `answer`, and, if wished, `family`, `options`, `box` and `id`: docs/jsonl.md
    says what each holds. Columns of a table that are none of these are left unread, which `notes` says.

    Parameters
    ----------
    path
        The file.
    samples, seed
        When the file has more records, which of them are taken is drawn by seed; they keep the file's order.
    split
        One of `calibrate.datasets.splits.SPLITS`.
    families
        Only records of these.

    Raises
    ------
    FileUnreadable, FamilyUnknown, SplitUnknown
    DatasetBroken
        A record is malformed; says which one and which field.
    DatasetLibraryMissing
        A Parquet file without pyarrow.
    """

    def __init__(
        self, path: Path, *, samples: int, seed: int, split: str, families: Sequence[str] | None = None
    ) -> None:
        if split not in SPLITS:
            raise SplitUnknown(
                f"dataset {path.name} has no split {split!r}",
                expected=f"one of {', '.join(SPLITS)}",
                fix=did_you_mean(
                    split, SPLITS, "give one of these; splits in files of their own are taken whole with --split all"
                ),
            )
        raw = read_bytes(path)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        questions, unread = READERS[path.suffix](path, raw)
        if not questions:
            what = "line" if path.suffix == ".jsonl" else "row"
            raise DatasetBroken(f"{path}: has no {what}", expected="at least one sample", fix=f"add a {what}")
        asked = with_options(questions)
        super().__init__(path.name, asked, digest=digest, samples=samples, seed=seed, split=split, families=families)
        if unread:
            columns = ", ".join(printable(name) for name in unread)
            self.notes.append(f"dataset {path.name}: columns that are not read: {columns}")


def _of_json_lines(path: Path, raw: bytes) -> Read:
    return list(_checked_lines(path, raw)), []


def _checked_lines(path: Path, raw: bytes) -> Iterator[Question]:
    for line in json_lines(path, raw):
        if unknown := sorted(line.data.keys() - set(FIELDS)):
            raise line.broken(f"unknown field {printable(unknown[0])!r}", f"some of {', '.join(FIELDS)}")
        yield question_of(line, picture_from_text(line, "image", path.parent))


def _of_csv(path: Path, raw: bytes) -> Read:
    questions, columns = list[Question](), list[str]()
    for row in comma_separated(path, raw):
        if not questions:
            columns = list(row.data)
            _check_columns(path, columns, "separated by commas")
        cells = from_cells(row)
        questions.append(question_of(cells, picture_from_text(cells, "image", path.parent)))
    return questions, _unread(columns)


def _of_parquet(path: Path, raw: bytes) -> Read:
    table = ParquetTable(path, raw)
    _check_columns(path, table.columns, "as columns")
    textual = table.holds_text("image")
    fields = [name for name in FIELDS if textual or name != "image"]
    questions = []
    for row in table.records(fields):
        picture = picture_from_text(row, "image", path.parent) if textual else table.picture(row, "image")
        questions.append(question_of(row, picture))
    return questions, _unread(table.columns)


READERS: Final[Mapping[str, Callable[[Path, bytes], Read]]] = {
    ".jsonl": _of_json_lines,
    ".csv": _of_csv,
    ".parquet": _of_parquet,
}
"""Readers by suffix; called with the path, for errors and as the place of pictures, and the content."""


def _check_columns(path: Path, columns: list[str], how: str) -> None:
    if missing := [name for name in REQUIRED if name not in columns]:
        there = ", ".join(printable(name) for name in columns)
        raise DatasetBroken(
            f"{path}: has no column {missing[0]!r}, but {printable(there, 120)}",
            expected=f"{', '.join(REQUIRED)}, and if wished {', '.join(OPTIONAL)}, {how}",
            fix="rename or add columns (docs/jsonl.md)",
        )


def _unread(columns: list[str]) -> list[str]:
    return [name or "(without a name)" for name in columns if name not in FIELDS]
