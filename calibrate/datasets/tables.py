"""Tables in text files: rows of cells with a header, separated by tabs or commas.

Owns quoting, rows of the wrong length and header cells that stand twice. Every cell is text as it stands: `NA`, `None`
and blanks are nothing special. Knows no dataset.
"""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from calibrate.datasets.records import Record, printable
from calibrate.errors import DatasetBroken


def tab_separated(path: Path, raw: bytes) -> Iterator[Record]:
    """The rows of a tab-separated file with a header, quoted as by Excel and pandas; row 1 is the first below it.

    Raises
    ------
    DatasetBroken
    """
    return _records(path, raw, "\t", "tab-separated")


def comma_separated(path: Path, raw: bytes) -> Iterator[Record]:
    """The rows of a comma-separated file, as `tab_separated` has them.

    Raises
    ------
    DatasetBroken
    """
    return _records(path, raw, ",", "comma-separated")


def _records(path: Path, raw: bytes, delimiter: str, kind: str) -> Iterator[Record]:
    header, *rows = _rows(path, raw, delimiter, kind) or [[]]
    if again := [name for name in header if name and header.count(name) > 1]:
        raise DatasetBroken(
            f"{path}: column {printable(again[0])!r} stands twice in the header",
            expected="each column once",
            fix="rename one, or take it out",
        )
    for number, row in enumerate(rows, 1):
        record = Record(str(path), f"row {number}", number, dict(zip(header, row, strict=False)))
        if len(row) != len(header):
            raise record.broken(f"has {len(row)} cells", f"{len(header)}, as in the header")
        yield record


def _rows(path: Path, raw: bytes, delimiter: str, kind: str) -> list[list[str]]:
    """All rows but blank lines. Strict: text behind a closing quote, which others join to the cell, is an error."""
    limit = csv.field_size_limit(sys.maxsize)  # a cell may hold a picture
    expected, line = f"{kind} columns in UTF-8", 0
    try:
        table = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
        rows = []
        for row in table:
            line = table.line_num
            if row:
                rows.append(row)
        return rows
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DatasetBroken(
            f"{path}: is no table (line {line} is not UTF-8)", expected=expected, fix="save it in UTF-8"
        ) from None
    except csv.Error as error:
        raise DatasetBroken(
            f"{path}: is no table (the row that begins in line {line + 1}: {error})",
            expected=f"{expected}, quotes in a quoted cell doubled",
            fix="mend that row, or fetch the file again",
        ) from None
    finally:
        csv.field_size_limit(limit)
