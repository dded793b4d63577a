"""How tests are spread over the workers of pytest-xdist, and which ports a worker may take.

What shares a fixture that is expensive to set up runs in one worker: the tests of the shared server, and those of one
file. Does nothing in a run without workers. Knows nothing of what the fixtures are.
"""

import contextlib
import os
import random
import socket

import pytest

PORTS = range(20_000, 30_000)
"""Below those that Linux gives to whoever asks for any: no other process takes one between the choice and its use."""


def group(item: pytest.Item) -> str:
    """Name of the group that an item runs in."""
    fixtures = getattr(item, "fixturenames", ())
    file = item.nodeid.split("::")[0]
    if "server" in fixtures:
        return "server"
    if "engine_host" in fixtures:
        return f"engines of {file}"
    # A long test that starts servers of its own shares none of them.
    return item.nodeid if item.get_closest_marker("long") and "vllm_environment" in fixtures else file


def order(item: pytest.Item) -> int:
    """The shared server's tests first, then other servers and engines: workers end with small things."""
    if "server" in getattr(item, "fixturenames", ()):
        return 0
    return 1 if item.get_closest_marker("vllm") else 2


@pytest.hookimpl(tryfirst=True)  # pytest-xdist writes the groups into the items' names
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group and order the items, in workers only; a group that a test has by a mark of its own is left to it."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=order)


def free_port() -> int:
    """A port of this machine on which nothing listens, and that no other worker chooses."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ours = PORTS[number % 20 * 500 :][:500]
    for port in random.Random().sample(ours, len(ours)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no free port from {ours[0]} to {ours[-1]}")
