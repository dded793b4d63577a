"""The command line, and the vLLM extension that serves a pruning plan.

Importing this package is cheap. `vhserve.engine` runs inside vLLM and does not know `calibrate`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("vhserve")
except PackageNotFoundError:  # a source tree on PYTHONPATH, as on machines where nothing can be installed
    __version__ = "0+unknown"

__all__ = [
    "__version__",
    "child_processes",
    "cli",
    "commands",
    "compat",
    "demo",
    "engine",
    "errors",
    "evaluation",
    "loadtest",
    "notes",
    "report",
    "server",
]
