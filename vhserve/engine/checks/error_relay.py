"""Relays a `UserError` from an engine process to the command that started it.

vLLM ends an engine process on any exception and reports to its parent only that the process ended. Does not know what
the errors are about.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from profiles.errors import UserError
from vhserve.engine.checks import engine_reports

_NAME: Final = "error"


class EngineRefused(UserError):
    """A `UserError` of an engine process, with its text."""


@contextmanager
def relay_user_errors() -> Iterator[None]:
    """Report a `UserError` of the block, and let it propagate."""
    try:
        yield
    except UserError as error:
        engine_reports.put(_NAME, {"wrong": error.wrong, "expected": error.expected, "fix": error.fix})
        raise


@contextmanager
def raise_relayed_errors() -> Iterator[None]:
    """Raise the error that a process started in the block has relayed, in place of what the block itself raised.

    Raises
    ------
    EngineRefused
        A child process has relayed an error. Without one, the block's own exception propagates unchanged.
    """
    with engine_reports.taken():
        try:
            yield
        except (Exception, SystemExit) as error:
            if parts := engine_reports.get(_NAME):
                raise EngineRefused(**parts) from error
            raise
