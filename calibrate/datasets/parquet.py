"""Parquet files, as the Hugging Face Hub publishes datasets: a row for each record, pictures in a column of their own.

Owns all that touches pyarrow, which is optional (`pip install 'vhserve[parquet]'`) and imported when the first such
file is opened. Pictures stay in Arrow's memory until they are wanted. Knows no dataset.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibrate.datasets.pictures import LoadedPicture, Picture
from calibrate.datasets.records import Record, printable
from calibrate.datasets.written_pictures import EXPECTED, picture_from_cell
from calibrate.errors import DatasetBroken, DatasetLibraryMissing


@dataclass(frozen=True)
class CellPicture:
    """The picture in a cell, of a column with bytes or with `bytes` and `path`; the same as another of path and row."""

    path: Path
    number: int
    column: Any = field(compare=False, repr=False)
    name: str = "in its cell"

    def load(self) -> LoadedPicture:
        return self._picture().load()

    def digest(self) -> bytes:
        return self._picture().digest()

    def _picture(self) -> Picture:
        return picture_from_cell(self.column[self.number].as_py(), self.path.parent)


class ParquetTable:
    """A Parquet file.

    Raises
    ------
    DatasetLibraryMissing
        Without pyarrow.
    DatasetBroken
        The file is damaged, or no Parquet file.
    """

    def __init__(self, path: Path, raw: bytes) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise DatasetLibraryMissing(
                f"dataset {path.name} needs the library pyarrow ({error})",
                expected="it installed",
                fix="pip install 'vhserve[parquet]', or give a .jsonl or .csv file",
            ) from error
        self.path, self._arrow = path, pyarrow
        try:
            self._table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(raw)).read()
        except (pyarrow.ArrowException, OSError) as error:
            raise DatasetBroken(
                f"{path}: cannot be read as Parquet ({printable(str(error), 120)})",
                expected="a Parquet file",
                fix="fetch the file again",
            ) from error
        self.columns: list[str] = self._table.column_names
        if again := [name for name in self.columns if self.columns.count(name) > 1]:
            raise DatasetBroken(
                f"{path}: column {printable(again[0])!r} stands twice",
                expected="each column once",
                fix="rename one, or take it out",
            )

    def records(self, fields: Sequence[str]) -> Iterator[Record]:
        """The rows with these columns, as far as they are there; null cells are left out. Row 0 is the first.

        Raises
        ------
        DatasetBroken
            A text is not UTF-8.
        """
        columns = {name: self._table.column(name) for name in fields if name in self.columns}
        for number in range(self._table.num_rows):
            where = Record(str(self.path), f"row {number}", number, {})
            data = {}
            for name, column in columns.items():
                try:
                    data[name] = column[number].as_py()
                except (ValueError, OverflowError):
                    raise where.broken(f"field {name!r} cannot be read", "a text in UTF-8") from None
            yield Record(where.file, where.place, number, {name: one for name, one in data.items() if one is not None})

    def holds_text(self, name: str) -> bool:
        """Whether a column holds texts."""
        types, kind = self._arrow.types, self._kind(name)
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    def picture(self, record: Record, name: str) -> Picture:
        """The picture in a row's cell, of bytes or of `bytes` and `path`.

        Raises
        ------
        DatasetBroken
            The cell is empty, or its column is of another type.
        """
        types, kind, column = self._arrow.types, self._kind(name), self._table.column(name)
        fields = {field.name for field in kind} if types.is_struct(kind) else set()
        binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
        if not binary and not {"bytes", "path"} & fields:
            raise record.broken(f"field {name!r} is of the type {printable(str(kind))}", f"bytes, {EXPECTED}")
        if not column[record.number].is_valid:
            raise record.broken(f"field {name!r} is empty", f"bytes, {EXPECTED}")
        return CellPicture(self.path, record.number, column)

    def _kind(self, name: str) -> Any:
        kind = self._table.column(name).type
        return kind.value_type if self._arrow.types.is_dictionary(kind) else kind
