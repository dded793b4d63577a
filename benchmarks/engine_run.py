"""One run of a benchmark that starts engines of dummy weights: `profile` and `serving`.

Owns what is refused before any engine starts, and that what was measured is kept and shown however the run ends. Does
not know what is measured nor how it is shown.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine, sizes
from benchmarks.deadline import OutOfTime
from benchmarks.dummy_model import Geometry
from profiles.errors import UserError
from profiles.files import write_atomically
from vhserve.child_processes import ending_on_signals

Report = dict[str, Any]


def measured(
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace, Geometry, Path, Report], None],
    show: Callable[[Report], None],
) -> int:
    """Measure and show, as the parsed command line `args` asks.

    Parameters
    ----------
    measure
        Is given the arguments, the sizes of the model, an empty folder, which goes afterwards, and an empty report,
        which it fills as results come.
    show
        Is given the report, unless nothing stands in it.

    Returns
    -------
    int
        The exit code; 1 where the time was over too early.
    """
    geometry = sizes.geometry(args)
    try:
        machine.refuse(args.arms, machine.Machine.here(), geometry.head_size, args.gpu_memory)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    report: Report = {}
    try:
        with ending_on_signals(), tempfile.TemporaryDirectory(prefix="vhserve-bench-") as scratch:
            measure(args, geometry, Path(scratch), report)
    except OutOfTime as error:
        print(error, flush=True)
        return 1
    finally:
        if report:
            show(report)
    return 0


def write(report: Report, args: argparse.Namespace) -> None:
    """Write the report whole, with the command line that made it, in place of the one before."""
    report["command"] = vars(args) | {"out": str(args.out), "arms": [name.text for name in args.arms]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
