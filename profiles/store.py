"""Saves and loads profiles and plans: canonical and atomic one way, strict with named errors the other.

Does not know what the documents mean; `profiles.defects` words the errors of their schemas.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from profiles import canonical
from profiles.defects import named_error
from profiles.errors import FileTooLarge, FileUnreadable, FileUnwritable
from profiles.head_profile import PROFILE_FORMAT, HeadProfile
from profiles.pruning_plan import PLAN_FORMAT, PruningPlan
from profiles.reading import check_version, parse
from profiles.strict import FROM_FILE, Strict

# A profile of 128 layers of 128 heads of 128 values takes about 14 MiB.
MAX_BYTES = 64 * 2**20

Document = TypeVar("Document", HeadProfile, PruningPlan)


def save(document: Strict, path: Path) -> None:
    """Write the canonical bytes; the file is at every moment the old one or the new one, whole.

    Raises
    ------
    FileUnwritable
        The folder is missing or refuses, or the disk is full. An existing file stays as it was.
    """
    raw = canonical.to_bytes(document)
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
    """Refuse an output path that `save` could not write, before any work is done for it.

    Raises
    ------
    FileUnwritable
    """
    try:
        _write_beside(_target(path), b"").unlink()
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def load_profile(path: Path) -> HeadProfile:
    """Read a head profile.

    Raises
    ------
    FileUnreadable, FileTooLarge, FileTruncated, NotJson, DuplicateField, WrongVersion, UnknownField, MissingField,
    WrongValue, WrongShape, NotFinite
    """
    return _from_data(HeadProfile, PROFILE_FORMAT, parse(_read(path), str(path)), str(path))


def load_plan(path: Path) -> PruningPlan:
    """Read a pruning plan.

    Raises
    ------
    FileUnreadable, FileTooLarge, FileTruncated, NotJson, DuplicateField, WrongVersion, UnknownField, MissingField,
    WrongValue, WrongShape, NotFinite, ProtectedHeadTreated, SplitGroup
    """
    return plan_from_dict(parse(_read(path), str(path)), source=str(path))


def plan_from_dict(data: dict[str, Any], source: str = "additional_config") -> PruningPlan:
    """A plan from parsed JSON, as strictly as from a file.

    Raises
    ------
    WrongVersion, UnknownField, MissingField, WrongValue, WrongShape, NotFinite, ProtectedHeadTreated, SplitGroup
    """
    return _from_data(PruningPlan, PLAN_FORMAT, data, source)


def _from_data(kind: type[Document], format_name: str, data: dict[str, Any], source: str) -> Document:
    check_version(data, format_name, source)
    try:
        return kind.model_validate(data, context=FROM_FILE)
    except ValidationError as error:
        raise named_error(error, source) from None


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # opening a pipe or device could block, or never end
            raise OSError("it is not a file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        wrong = f"cannot read {path}: {_reason(error)}"
        raise FileUnreadable(wrong, expected="a readable file", fix="check the path") from error
    if len(raw) > MAX_BYTES:
        expected = f"at most {MAX_BYTES // 2**20} MiB"
        raise FileTooLarge(f"{path}: is too large for a profile or plan", expected=expected, fix="check the path")
    return raw


def _reason(error: OSError | ValueError) -> str:
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
    wrong = f"cannot write {path}: {_reason(error)}"
    return FileUnwritable(wrong, expected="a file in a writable folder", fix="give another path")
