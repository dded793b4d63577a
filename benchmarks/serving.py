"""Plans against stock vLLM on the same KV cache memory: `python -m benchmarks.serving --help`.

Each arm is a process with an engine of dummy weights; the arms take turns on the same requests, several times, and
medians are compared: at the same number of requests at once, and each arm at its own best one. A row is printed and
written, as JSON, after every turn, so that a run that ends early keeps what it has; then come tables and a plot. Does
not know which turns there are (`turns`) nor how results are shown (`serving_tables`).
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers

from benchmarks import dummy_model, engines, machine, serving_tables, sizes  # noqa: E402
from benchmarks.serving_options import parser  # noqa: E402
from benchmarks.turns import measure  # noqa: E402
from profiles.errors import UserError  # noqa: E402
from profiles.files import write_atomically  # noqa: E402
from vhserve.child_processes import ending_on_signals  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__).parse_args(argv)
    geometry = sizes.geometry(args)
    try:
        machine.refuse(args.arms, machine.Machine.here(), geometry.head_size, args.gpu_memory)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    report: dict[str, Any] = {}
    try:
        with ending_on_signals(), tempfile.TemporaryDirectory(prefix="vhserve-bench-") as scratch:
            run(args, geometry, Path(scratch), report)
    finally:
        if report:
            serving_tables.show(report)
            if importlib.util.find_spec("matplotlib"):  # not on every machine with a GPU
                serving_tables.plot(report, args.out.with_suffix(".png"))
    return 0


def run(args: argparse.Namespace, geometry: dummy_model.Geometry, folder: Path, report: dict[str, Any]) -> None:
    """Start the arms and take their turns; `report` is filled as they come."""
    with engines.running(args, geometry, folder) as arms:
        for grown, line in measure(args, geometry, arms):
            report.update(grown)
            write(report, args)
            print(line, flush=True)


def write(report: dict[str, Any], args: argparse.Namespace) -> None:
    """Write the report whole, in place of the one before."""
    report["command"] = vars(args) | {"out": str(args.out), "arms": [name.text for name in args.arms]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out.with_suffix(".json"), json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
