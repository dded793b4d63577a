"""What a document says about the software that wrote it: versions of packages, and the commit of a source checkout.

Does not import the packages it asks about.
"""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of those of the named distributions that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        installed = _version(package)
        if installed is not None:
            found[package] = installed
    return found


@cache
def git_commit(root: Path = ROOT) -> str | None:
    """Commit of the checkout at `root`, or None when it isn't one.

    An installed wheel lies in somebody else's repository perhaps, whose commit would say nothing: hence only a
    repository that starts at `root` itself.
    """
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
