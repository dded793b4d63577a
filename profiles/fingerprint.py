"""The revision of a model folder: a Hub commit where the folder is a Hub snapshot, else a digest of its files.

Every byte of the weights is covered (`profiles.checkpoints.file_digests`); those of a snapshot are compared with the
digests that the Hub's cache names them by. Does not know what is in the files.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from profiles.checkpoints.file_digests import Advance, FileDigest, file_digest, remembered
from profiles.errors import FileUnreadable, ModelBroken

WEIGHTS: Final = ("*.safetensors", "*.bin")
INDICES: Final = ("*.index.json",)

SCHEME: Final = "sha256v2:"
"""In front of digests over whole files."""

OLD_SCHEME: Final = "sha256:"
"""In front of digests of earlier releases, which cover the first and last MiB of each weight file."""

BAR_FROM: Final = 256 << 20
"""Least number of bytes to be read for which a bar is shown."""

_EDGE: Final = 2**20
_THREADS: Final = 4

Bar = Callable[[int], AbstractContextManager[Advance]]
"""Makes a progress bar for so many bytes, and yields what advances it."""


@dataclass(frozen=True)
class ModelIdentity:
    """What a folder's files are, and how that was found out.

    Attributes
    ----------
    revision
        What documents record.
    digests
        Of the weight files, in order of name. Empty for an `OLD_SCHEME` revision, which is of their ends only.
    compared
        How many weight files the revision covers: of a Hub snapshot, those that are what the Hub says they are.
    """

    revision: str
    digests: Sequence[FileDigest]
    compared: int

    def __str__(self) -> str:
        files = len(self.digests)
        size = sum(digest.size for digest in self.digests)
        known = sum(digest.remembered for digest in self.digests)
        how = f"{known} of them remembered, unchanged since" if known else "every byte read"
        apart = "" if self.compared == files else f"; {files - self.compared} not in the Hub's cache, and not compared"
        return f"{self.revision[:21]}, {files} weight file{'s' * (files != 1)} of {_in_words(size)}, {how}{apart}"


def model_revision(path: Path, like: str | None = None) -> str:
    """Revision of the model in a folder; see `identify_model`."""
    return identify_model(path, like).revision


def identify_model(path: Path, like: str | None = None, bar: Bar | None = None) -> ModelIdentity:
    """Find out what the model in a folder is.

    Parameters
    ----------
    like
        A revision in a document, in whose scheme the folder's is wanted.
    bar
        Shows progress where `BAR_FROM` bytes or more must be read.

    Returns
    -------
    ModelIdentity
        Its revision is the 40 hexadecimal digits of the commit for ``…/snapshots/<commit>``, else ``sha256v2:…`` over
        ``config.json``, the indices, and name, size and SHA-256 of every weight file.

    Raises
    ------
    FileUnreadable
        The folder, or its ``config.json``, cannot be read.
    ModelBroken
        A file of a Hub snapshot is not what the Hub says it is.
    """
    folder = path.resolve()
    try:
        if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name):
            return _identify_snapshot(folder, bar)
        if like is not None and like.startswith(OLD_SCHEME):
            return ModelIdentity(_digest_of_ends(folder), (), 0)
        config = (folder / "config.json").read_bytes()
        files = _files(folder, WEIGHTS)
        digests = _digests(files, bar)
        parts = [config]
        for index in _files(folder, INDICES):
            parts += [index.name.encode(), index.read_bytes()]
        for file, digest in zip(files, digests, strict=True):
            parts += [file.name.encode(), str(digest.size).encode(), digest.sha256.encode()]
        return ModelIdentity(SCHEME + _digest(parts), digests, len(files))
    except OSError as error:
        wrong = f"{path}: {error.strerror or error}"
        raise FileUnreadable(wrong, expected="a model folder with a config.json", fix="check the path") from error


def old_scheme_warning(document: str, revision: str) -> str | None:
    """The line to print about a document whose revision covers less than the whole weights, else None.

    Parameters
    ----------
    document
        What the document is called.
    revision
        Of the model, as the document says it.
    """
    if not revision.startswith(OLD_SCHEME):
        return None
    return (
        f"{document} names its model by a digest of an earlier release, over the first and last MiB of each weight "
        "file: what lies between was not compared; calibrate again to have every byte covered"
    )


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted(file for pattern in patterns for file in folder.glob(pattern))


def _digests(files: Sequence[Path], bar: Bar | None) -> list[FileDigest]:
    """Digests of files, several read at a time."""
    unread = sum(file.stat().st_size for file in files if remembered(file) is None)
    with ThreadPoolExecutor(_THREADS) as pool:
        if bar is None or unread < BAR_FROM:
            return list(pool.map(file_digest, files))
        with bar(unread) as advance:
            return list(pool.map(lambda file: file_digest(file, advance), files))


def _identify_snapshot(folder: Path, bar: Bar | None) -> ModelIdentity:
    """Identity of a snapshot in the Hub's cache, whose files are links to `blobs` that are named by their digests."""
    config = folder / "config.json"
    wanted, raw = config.resolve().name, config.read_bytes()
    if re.fullmatch("[0-9a-f]{40}", wanted) and config.is_symlink():  # as git names a file
        found = hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()
        if found != wanted:
            raise _damaged(config, found, wanted)
    files = _files(folder, WEIGHTS)
    digests, compared = _digests(files, bar), 0
    for file, digest in zip(files, digests, strict=True):
        wanted = file.resolve().name
        if not (file.is_symlink() and re.fullmatch("[0-9a-f]{64}", wanted)):
            continue
        if digest.sha256 != wanted:
            raise _damaged(file, digest.sha256, wanted)
        compared += 1
    return ModelIdentity(folder.name, digests, compared)


def _damaged(file: Path, found: str, wanted: str) -> ModelBroken:
    return ModelBroken(
        f"{file} is damaged: its digest is {found[:12]}…",
        expected=f"{wanted[:12]}…, which the Hub names it by",
        fix=f"remove {file.resolve()} and fetch the model again",
    )


def _digest_of_ends(folder: Path) -> str:
    """The revision as earlier releases wrote it."""
    parts = [(folder / "config.json").read_bytes()]
    for weights in _files(folder, WEIGHTS):
        with weights.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            first = file.read(_EDGE)
            file.seek(max(0, size - _EDGE))
            parts += [weights.name.encode(), str(size).encode(), first, file.read(_EDGE)]
    return OLD_SCHEME + _digest(parts)


def _digest(parts: Sequence[bytes]) -> str:
    """SHA-256 over parts. Lengths keep two apart: without them, moving a byte from one to the next changes nothing."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
