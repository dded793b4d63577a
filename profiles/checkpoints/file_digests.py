"""SHA-256 of whole files, remembered in the user's cache folder: a model of 14 GB is read once, not at every start.

Owns the cache: one small file for each large file, under its path, valid while size, times and inode stay the same.
Written atomically, so that any number of processes may share it; what cannot be read there counts as absent, and a
folder that cannot be written is no error. Does not know what files are of.
"""

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CACHED_FROM: Final = 64 << 20
"""Smallest file that is remembered, in bytes; smaller ones take no time."""

SETTLED_NS: Final = 2_000_000_000
"""Nanoseconds for which a file must have been left alone to be remembered: a later change could have the same times."""

_CHUNK: Final = 4 << 20

Advance = Callable[[int], None]
"""Called with the number of bytes read since the last call; may be called in several threads at once."""


class FileChanging(OSError):
    """A file changed while it was read."""


@dataclass(frozen=True)
class FileDigest:
    """Digest of a whole file.

    Attributes
    ----------
    sha256
        64 hexadecimal digits.
    size
        Bytes.
    remembered
        Whether it comes from the cache, and the file was not read now.
    """

    sha256: str
    size: int
    remembered: bool


def file_digest(path: Path, advance: Advance | None = None) -> FileDigest:
    """Digest of a file, read from its first to its last byte unless its digest is remembered.

    Raises
    ------
    OSError
        It cannot be read; `FileChanging` where something writes to it meanwhile.
    """
    path = path.resolve()
    known = remembered(path)
    if known is not None:
        return known
    started = time.time_ns()
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        buffer = memoryview(bytearray(min(_CHUNK, max(1, before.st_size))))
        while count := file.readinto(buffer):
            total.update(buffer[:count])
            if advance is not None:
                advance(count)
        after = os.fstat(file.fileno())
    if _state(before) != _state(after):
        raise FileChanging(None, "it changed while it was read")
    settled = started - max(after.st_mtime_ns, after.st_ctime_ns) > SETTLED_NS
    if after.st_size >= CACHED_FROM and settled:
        _remember(path, after, total.hexdigest())
    return FileDigest(total.hexdigest(), after.st_size, remembered=False)


def remembered(path: Path) -> FileDigest | None:
    """The digest of a file in the cache, or None: never read, or changed since."""
    path = path.resolve()
    state = path.stat()
    if state.st_size < CACHED_FROM:
        return None
    try:
        entry = json.loads(_place(path).read_text(encoding="utf-8"))
        sha256 = entry.pop("sha256")
        if entry != {"path": str(path), **_state(state)} or not re.fullmatch("[0-9a-f]{64}", sha256):
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return FileDigest(sha256, state.st_size, remembered=True)


def cache_folder() -> Path:
    """Where digests are remembered: `vhserve/digests` in XDG_CACHE_HOME, which is `~/.cache` by default."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))) / "vhserve" / "digests"


def _state(state: os.stat_result) -> dict[str, int]:
    """What changes when a file does. Its time of change, unlike that of its content, cannot be set back."""
    return {
        "size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "ctime_ns": state.st_ctime_ns,
        "inode": state.st_ino,
    }


def _place(path: Path) -> Path:
    return cache_folder() / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _remember(path: Path, state: os.stat_result, sha256: str) -> None:
    entry: dict[str, Any] = {"path": str(path), **_state(state), "sha256": sha256}
    place = _place(path)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, encoding="utf-8", delete=False) as file:
            try:
                json.dump(entry, file)
                file.close()
                os.replace(file.name, place)
            except OSError:
                os.unlink(file.name)
                raise
