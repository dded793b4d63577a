"""Relays a `UserError` from an engine process to the command that started it.

Owns the transport: a JSON file whose path is in an environment variable, which child processes inherit. vLLM ends an
engine process on any exception and reports to its parent only that the process ended. Does not know what the errors
are about.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from profiles.errors import UserError

ENVIRONMENT_VARIABLE: Final = "VHSERVE_ERROR_FILE"
"""Holds the path of the file that an engine process writes its error to."""


class EngineRefused(UserError):
    """A `UserError` of an engine process, with its text."""


@contextmanager
def relay_user_errors() -> Iterator[None]:
    """Write a `UserError` of the block to the relay file, if the environment names one, and let it propagate."""
    try:
        yield
    except UserError as error:
        if path := os.environ.get(ENVIRONMENT_VARIABLE):
            parts = {"wrong": error.wrong, "expected": error.expected, "fix": error.fix}
            Path(path).write_text(json.dumps(parts), encoding="utf-8")
        raise


@contextmanager
def raise_relayed_errors() -> Iterator[None]:
    """Raise the error that a process started in the block has relayed, in place of what the block itself raised.

    Raises
    ------
    EngineRefused
        A child process has relayed an error. Without one, the block's own exception propagates unchanged.
    """
    with tempfile.TemporaryDirectory(prefix="vhserve-") as folder:
        path = Path(folder) / "error.json"
        os.environ[ENVIRONMENT_VARIABLE] = str(path)
        try:
            yield
        except (Exception, SystemExit) as error:
            if path.exists():
                raise EngineRefused(**json.loads(path.read_text(encoding="utf-8"))) from error
            raise
        finally:
            del os.environ[ENVIRONMENT_VARIABLE]
