"""The command line, and the vLLM extension that serves a pruning plan.

Importing this package is cheap. `vhserve.engine` runs inside vLLM and does not know `calibrate`.
"""

import time
from typing import Final

STARTED: Final = time.monotonic()
"""When this process imported the package, which is what a command does first."""

__version__: str

__all__ = [
    "STARTED",
    "__version__",
    "child_processes",
    "cli",
    "command_line",
    "commands",
    "compat",
    "demo",
    "devices",
    "engine",
    "errors",
    "evaluation",
    "loadtest",
    "notes",
    "option_types",
    "report",
    "server",
    "standard_output",
]


def __getattr__(name: str) -> str:
    """`__version__`, read when it is asked for: every process of ours imports this package, and few want to know."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vhserve")
    except PackageNotFoundError:  # a source tree on PYTHONPATH, as on machines where nothing can be installed
        return "0+unknown"
