"""Saves and loads profiles and plans: canonical and atomic one way, strict with named errors the other.

Does not know what the documents mean; `profiles.defects` words the errors of their schemas.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from profiles import canonical
from profiles.defects import named_error
from profiles.errors import FileTooLarge, FileUnreadable
from profiles.files import reason, write_atomically
from profiles.head_profile import PROFILE_FORMAT, HeadProfile
from profiles.pruning_plan import PLAN_FORMAT, PruningPlan
from profiles.reading import check_version, parse
from profiles.strict import FROM_FILE, Strict
from profiles.version_1 import HeadProfileV1

# A profile of 128 layers of 128 heads of 128 values takes about 14 MiB.
MAX_BYTES = 64 * 2**20

Document = TypeVar("Document", bound=Strict)


def save(document: Strict, path: Path) -> None:
    """Write a document's canonical bytes, atomically.

    Raises
    ------
    FileUnwritable
    """
    write_atomically(path, canonical.to_bytes(document))


def load_profile(path: Path) -> HeadProfile:
    """Read a head profile, of version 2 or 1.

    Raises
    ------
    FileUnreadable, FileTooLarge, FileTruncated, NotJson, DuplicateField, WrongVersion, UnknownField, MissingField,
    WrongValue, WrongShape, NotFinite
    """
    data, source = parse(read_bytes(path), str(path)), str(path)
    if check_version(data, PROFILE_FORMAT, source, (1, 2)) == 1:
        return _validated(HeadProfileV1, data, source, 1).upgraded()
    return _validated(HeadProfile, data, source, 2)


def load_plan(path: Path) -> PruningPlan:
    """Read a pruning plan.

    Raises
    ------
    FileUnreadable, FileTooLarge, FileTruncated, NotJson, DuplicateField, WrongVersion, UnknownField, MissingField,
    WrongValue, WrongShape, NotFinite, ProtectedHeadTreated, SplitGroup
    """
    return plan_from_dict(parse(read_bytes(path), str(path)), source=str(path))


def plan_from_dict(data: dict[str, Any], source: str = "additional_config") -> PruningPlan:
    """A plan from parsed JSON, as strictly as from a file.

    Raises
    ------
    WrongVersion, UnknownField, MissingField, WrongValue, WrongShape, NotFinite, ProtectedHeadTreated, SplitGroup
    """
    return _from_data(PruningPlan, PLAN_FORMAT, data, source)


def load_as(kind: type[Document], format_name: str, path: Path) -> Document:
    """Read a document of a kind that this package does not know, as strictly as its own.

    Parameters
    ----------
    format_name
        What its field `format` says.

    Raises
    ------
    As `load_profile`.
    """
    return _from_data(kind, format_name, parse(read_bytes(path), str(path)), str(path))


def _from_data(kind: type[Document], format_name: str, data: dict[str, Any], source: str) -> Document:
    return _validated(kind, data, source, check_version(data, format_name, source))


def _validated(kind: type[Document], data: dict[str, Any], source: str, version: int) -> Document:
    try:
        return kind.model_validate(data, context=FROM_FILE)
    except ValidationError as error:
        raise named_error(error, source, version) from None


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises
    ------
    FileUnreadable, FileTooLarge
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe or device could block, or never end
            raise OSError("it is not a file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        wrong = f"cannot read {path}: {reason(error)}"
        raise FileUnreadable(wrong, expected="a readable file", fix="check the path") from error
    if len(raw) > MAX_BYTES:
        expected = f"at most {MAX_BYTES // 2**20} MiB"
        raise FileTooLarge(
            f"{path}: is too large for a profile, plan or scores", expected=expected, fix="check the path"
        )
    return raw
