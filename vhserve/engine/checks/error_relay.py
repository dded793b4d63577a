"""A refusal that only an engine's process sees, carried to the command that started it.

Owns the way: a file named in the environment. vLLM ends its processes for an exception in one of them, and tells the
first of them only that one ended. Does not know what is refused.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from profiles.errors import UserError

VARIABLE: Final = "VHSERVE_LAST_WORDS"


class EngineRefused(UserError):
    """What an engine's process refused, in its words."""


@contextmanager
def last_words() -> Iterator[None]:
    """Leave word of a `UserError` that is raised in the block, where someone listens; it is raised all the same."""
    try:
        yield
    except UserError as error:
        if path := os.environ.get(VARIABLE):
            words = {"wrong": error.wrong, "expected": error.expected, "fix": error.fix}
            Path(path).write_text(json.dumps(words), encoding="utf-8")
        raise


@contextmanager
def listening() -> Iterator[None]:
    """Turn whatever ends the block into the refusal that a process started in it has left word of, if one has.

    Raises
    ------
    EngineRefused
    """
    with tempfile.TemporaryDirectory(prefix="vhserve-") as folder:
        path = Path(folder) / "last-words.json"
        os.environ[VARIABLE] = str(path)
        try:
            yield
        except (Exception, SystemExit) as error:
            if path.exists():
                raise EngineRefused(**json.loads(path.read_text(encoding="utf-8"))) from error
            raise
        finally:
            del os.environ[VARIABLE]
