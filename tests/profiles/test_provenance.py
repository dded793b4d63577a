"""What a document says about the software that wrote it is true, or left out."""

import platform
import subprocess
from pathlib import Path

import pydantic

from profiles.provenance import git_commit, versions


def test_versions_of_what_is_installed() -> None:
    found = versions("pydantic", "no-such-package")
    assert found == {"python": platform.python_version(), "pydantic": pydantic.VERSION}


def test_commit_of_a_checkout_only(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    inside = tmp_path / "site-packages"
    inside.mkdir()
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    assert git_commit(inside) is None  # a wheel in somebody else's repository
    git_commit.cache_clear()
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_commit(tmp_path) == head
