"""Plans against stock vLLM on the same KV cache memory: `python -m benchmarks.serving --help`.

Each arm is a process with an engine of dummy weights; the arms take turns on the same requests, several times, and
medians are compared: at the same number of requests at once, and each arm at its own best one. A row is printed and
written, as JSON, after every turn, so that a run that ends early keeps what it has; then come tables and a plot. Does
not know which turns there are (`turns`) nor how results are shown (`serving_tables`) and kept (`engine_run`).
"""

import argparse
import importlib.util
from pathlib import Path

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers

from benchmarks import dummy_model, engine_run, engines, serving_tables  # noqa: E402
from benchmarks.serving_options import parser  # noqa: E402
from benchmarks.turns import measure  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__).parse_args(argv)

    def show(report: engine_run.Report) -> None:
        serving_tables.show(report)
        if importlib.util.find_spec("matplotlib"):  # not on every machine with a GPU
            serving_tables.plot(report, args.out.with_suffix(".png"))

    return engine_run.measured(args, run, show)


def run(args: argparse.Namespace, geometry: dummy_model.Geometry, folder: Path, report: engine_run.Report) -> None:
    """Start the arms and take their turns; `report` is filled as they come."""
    with engines.running(args, geometry, folder) as arms:
        for grown, line in measure(args, geometry, arms):
            report.update(grown)
            engine_run.write(report, args)
            print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
