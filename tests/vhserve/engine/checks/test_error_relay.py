"""The relay of an error from an engine process to the command that started it."""

import os
import subprocess
import sys

import pytest

from vhserve.engine.checks.engine_reports import ENVIRONMENT_VARIABLE
from vhserve.engine.checks.error_relay import EngineRefused, raise_relayed_errors, relay_user_errors
from vhserve.errors import FlagRefused

REFUSING = (
    "from vhserve.engine.checks.error_relay import relay_user_errors; from vhserve.errors import FlagRefused\n"
    "with relay_user_errors(): raise FlagRefused('backend X', expected='one of Y', fix='choose Y')"
)


def test_an_error_of_a_child_process_replaces_what_its_end_raised_here() -> None:
    def started() -> None:
        with raise_relayed_errors():
            child = subprocess.run([sys.executable, "-c", REFUSING], capture_output=True, text=True)
            assert "FlagRefused: backend X" in child.stderr  # its own end stays as it was
            raise SystemExit(1)

    with pytest.raises(EngineRefused) as caught:
        started()
    assert str(caught.value) == "backend X; expected one of Y; choose Y"
    assert isinstance(caught.value.__cause__, SystemExit)
    assert ENVIRONMENT_VARIABLE not in os.environ


def test_without_a_relayed_error_nothing_changes() -> None:
    with pytest.raises(RuntimeError, match="boom"), raise_relayed_errors():
        raise RuntimeError("boom")
    with raise_relayed_errors():
        pass


def test_relaying_without_a_parent_that_listens_only_raises() -> None:
    with pytest.raises(FlagRefused), relay_user_errors():
        raise FlagRefused("w", expected="e", fix="f")
