"""What an engine's processes tell the command that started them, beside what vLLM reports.

Owns the transport: JSON files in a folder whose path is in an environment variable, which child processes inherit. Does
not know what is told.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ENVIRONMENT_VARIABLE: Final = "VHSERVE_REPORTS"
"""Holds the path of the folder."""


@contextmanager
def taken() -> Iterator[None]:
    """Take reports while the block runs, from processes that are started in it."""
    with tempfile.TemporaryDirectory(prefix="vhserve-") as folder:
        os.environ[ENVIRONMENT_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[ENVIRONMENT_VARIABLE]


def put(name: str, value: Any) -> None:
    """Report a value that JSON can hold, if anyone takes reports; a later one of the name replaces it."""
    if folder := os.environ.get(ENVIRONMENT_VARIABLE):
        target = Path(folder, f"{name}.json")
        part = target.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(value), encoding="utf-8")
        part.replace(target)


def get(name: str) -> Any | None:
    """What was reported last under a name; None for nothing."""
    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    file = Path(folder, f"{name}.json") if folder else None
    return json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else None
