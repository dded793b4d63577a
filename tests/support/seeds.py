"""The seed of a test whose cases are random: the same in every run, or one that is asked for.

A gate that draws anew each time fails now and then for what nobody changed: here what passed once passes again.
`TEST_SEED` in the environment is the seed of all of them, or `new` for seeds that nobody has tried; `-m drawn` runs
these tests alone.
"""

import os
import random
import zlib

import pytest


@pytest.fixture
def random_seed(request: pytest.FixtureRequest) -> int:
    """Seed of a test's random cases, below 2^32; printed, so that a failure can be had again."""
    asked = os.environ.get("TEST_SEED", "")
    if asked == "new":
        seed = random.SystemRandom().getrandbits(32)
    else:
        seed = int(asked) if asked else zlib.crc32(request.node.name.encode())
    print("seed", seed)
    return seed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "random_seed" in getattr(item, "fixturenames", ()):
            item.add_marker("drawn")
