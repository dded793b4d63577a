"""A treatment that nobody ships, to show that everything follows from a definition."""

from collections.abc import Iterator
from contextlib import contextmanager

from profiles.treatments import TREATMENTS, ImageBlocks, Treatment

THIN = Treatment(
    name="every:3",
    label="every third block",
    phrase="with every third image block",
    description="keeps every third image block",
    seen_in_prompt=ImageBlocks(3),
    seen_in_reply=ImageBlocks(3),
    colour="#cc79a7",
    hatch="--",
)


@contextmanager
def registered(*treatments: Treatment) -> Iterator[None]:
    """Register treatments while the context is open."""
    before = dict(TREATMENTS)
    TREATMENTS.update({one.name: one for one in treatments})
    try:
        yield
    finally:
        TREATMENTS.clear()
        TREATMENTS.update(before)
