"""Files that are written whole or not at all, and outputs that would replace what they must not.

Does not know what is in a file, but for the `format` by which documents of vhserve say what they are.
"""

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from profiles.errors import FileUnwritable


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file; at every moment it is the old one or the new one, whole. Text becomes UTF-8.

    Raises
    ------
    FileUnwritable
        The folder is missing or refuses, or the disk is full. An existing file stays as it was.
    """
    raw = content.encode() if isinstance(content, str) else content
    try:
        target = _target(path)
        temporary = _write_beside(target, raw)
        try:
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
        note_written(path)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def note_written(path: Path) -> None:
    """Take note of a file that was written for the user, by `write_atomically` or by a process of this one."""
    if path not in _written:
        _written.append(path)


def take_written() -> list[Path]:
    """Files that were written since the last call and are still there, in the order in which they were."""
    found = [path for path in _written if path.exists()]
    _written.clear()
    return found


_written: list[Path] = []


def check_writable(path: Path) -> None:
    """Refuse an output path that `write_atomically` could not write, before any work is done for it.

    Raises
    ------
    FileUnwritable
    """
    try:
        _write_beside(_target(path), b"").unlink()
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def check_output(path: Path, *, document: str | None = None, inputs: Iterable[Path | str] = ()) -> None:
    """Refuse an output path that cannot be written, names an input, or holds something else than is written.

    Parameters
    ----------
    document
        `format` of the document of vhserve that is written, such as ``vhserve.pruning-plan``; an empty file, and a
        document of the same format, are replaced. None where no document is written (pages, figures, tables): then any
        file is replaced that is no document of vhserve.
    inputs
        What the command reads; what is no file is passed over.

    Raises
    ------
    FileUnwritable
    """
    check_writable(path)
    for one in inputs:
        if os.path.exists(one) and os.path.exists(path) and os.path.samefile(one, path):
            wrong = f"cannot write {path}: this command reads it"
            raise FileUnwritable(wrong, expected="another file", fix="give another path")
    if not path.exists() or not path.stat().st_size:
        return
    found = document_format(path)
    if found != document:
        held = f"a document of the format {found}" if found else "no document of vhserve"
        wrong = f"cannot write {path}: it holds {held}"
        expected = f"a new file, or one of the format {document}" if document else "a file that is no document"
        raise FileUnwritable(wrong, expected=expected, fix="give another path, or remove the file")


def document_format(path: Path) -> str | None:
    """The `format` of a document of vhserve; None for any other file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    found = content.get("format") if isinstance(content, dict) else None
    return found if isinstance(found, str) and found.startswith("vhserve.") else None


def reason(error: OSError | ValueError) -> str:
    """What was wrong with a path, in the system's words."""
    # A path with a null byte is a ValueError; an OSError of the system's has a number before its text.
    return getattr(error, "strerror", None) or str(error)


def _target(path: Path) -> Path:
    target = Path(os.path.realpath(path))  # a link stays a link, and the file it names is replaced
    if target.exists() and not target.is_file():
        raise OSError("it is not a file")
    if target.exists() and not os.access(target, os.W_OK):
        raise OSError("it is write-protected")
    return target


def _write_beside(target: Path, raw: bytes) -> Path:
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(raw)
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    # Not every file system can; the file itself is already safe.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unwritable(path: Path, error: OSError | ValueError) -> FileUnwritable:
    wrong = f"cannot write {path}: {reason(error)}"
    return FileUnwritable(wrong, expected="a file in a writable folder", fix="give another path")
