"""Programs that the deployment checks need; a test is skipped, with the reason, where its machine lacks one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def tool(name: str) -> str:
    """Path of a program, looked for beside the interpreter too."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed; `make test-deploy` installs it")
    return found


def run(name: str, *args: str | Path, cwd: Path | None = None, given: str | None = None) -> str:
    """Run a program to its end and return what it printed; the test fails with that if it fails."""
    command = [tool(name), *map(str, args)]
    done = subprocess.run(command, cwd=cwd, input=given, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
