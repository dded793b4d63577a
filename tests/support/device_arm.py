"""A benchmark's arm whose engine runs what a GPU runs, as `device_engines` says: with graphs, and a step ahead.

Its environment is `device_engines.ENVIRONMENT`. Judges nothing.
"""

from contextlib import ExitStack
from typing import Final

import device_engines

from benchmarks import arm

PATCHES: Final = ("triton_attention", "graphs", "async_scheduling")


def main(number: int) -> None:
    """The arm's side: as `arm.main`."""
    from profiles.torchvision_import import ensure_torchvision

    device_engines.give_triton_a_backend()
    ensure_torchvision()
    from engine_patches import PATCHES as KNOWN

    with ExitStack() as stack:
        for name in PATCHES:
            stack.enter_context(KNOWN[name]({}))
        arm.main(number)
