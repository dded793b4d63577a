"""Files that are written whole or not at all.

Knows paths and bytes, nothing of what is in them.
"""

import contextlib
import os
import secrets
import stat
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
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


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
