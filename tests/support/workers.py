"""How tests are spread over the workers of pytest-xdist, and which ports a worker may take.

What shares a fixture that is expensive to set up runs in one worker: the tests of the shared server, and those of one
file. Does nothing in a run without workers. Knows nothing of what the fixtures are.
"""

import contextlib
import json
import os
import random
import socket
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

FILE = pytest.StashKey[Path]()

PORTS = range(20_000, 30_000)
"""Below those that Linux gives to whoever asks for any: no other process takes one between the choice and its use."""


def group(item: pytest.Item) -> str:
    """Name of the group that an item runs in."""
    fixtures = getattr(item, "fixturenames", ())
    file = item.nodeid.split("::")[0]
    if "server" in fixtures:
        return "server"
    if "engine_host" in fixtures or "device_host" in fixtures:
        return f"engines of {file}"
    # A long test that starts servers of its own shares none of them.
    return item.nodeid if item.get_closest_marker("long") and "vllm_environment" in fixtures else file


def order(item: pytest.Item) -> int:
    """The shared server's tests first, then other servers and engines: workers end with small things."""
    if "server" in getattr(item, "fixturenames", ()):
        return 0
    return 1 if item.get_closest_marker("vllm") else 2


# xdist's own `loadgroup` writes groups into the names of tests. With pytest 9.2 that has no effect: tests are spread
# one by one, without a word (pytest-xdist's issue 1386). So workers name the groups in a file that the scheduler reads.


class Groups(LoadScopeScheduling):
    """Gives each group to one worker, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        self.file = config.stash[FILE]

    @cached_property
    def groups(self) -> dict[str, str]:
        """Group of each test, by the test's name."""
        groups: dict[str, str] = json.loads(self.file.read_text())
        return groups

    def _split_scope(self, nodeid: str) -> str:
        return self.groups[nodeid]


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") != "no":
        folder = tempfile.TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
        config.stash[FILE] = Path(folder.name) / "groups.json"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let a worker know where to name the groups; all collect the same, and one of them is enough."""
    if node.gateway.id == "gw0":
        node.workerinput["groups"] = str(node.config.stash[FILE])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the items and name their groups, in workers only."""
    if not hasattr(config, "workerinput"):
        return
    items.sort(key=order)
    if "groups" in config.workerinput:
        Path(config.workerinput["groups"]).write_text(json.dumps({item.nodeid: group(item) for item in items}))


def free_port() -> int:
    """A port of this machine on which nothing listens, and that no other worker chooses."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ours = PORTS[number % 20 * 500 :][:500]
    for port in random.Random().sample(ours, len(ours)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no free port from {ours[0]} to {ours[-1]}")
