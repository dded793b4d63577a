"""A process of its own that imports a function and talks with this one over a pipe.

However it ends, also while it is still importing, the pipe is at its end then: nobody waits for what will not come.
Does not know what is said.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

ENDED = (EOFError, ConnectionError)
"""What a connection raises when the other side has ended."""


def start(module: str, environment: Mapping[str, str], log: Path) -> tuple["subprocess.Popen[bytes]", Connection]:
    """Run `main` of a module, which is given a number for `parent`, in a new process with its output in a log.

    The module is imported, not run as the main one: what is sent must have the same class names on both sides.
    """
    ours, theirs = Pipe()
    with theirs, log.open("wb") as out:
        number = theirs.fileno()
        command = [sys.executable, "-c", f"import {module}; {module}.main({number})"]
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, pass_fds=[number])
    return process, ours


def parent(number: int) -> Connection:
    """In the new process: the connection to the one that started it, which processes of its own do not inherit."""
    os.set_inheritable(number, False)
    return Connection(number)
