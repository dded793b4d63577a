"""Where the time of a step goes, by kind of kernel, with plans and without: `python -m benchmarks.profile --help`.

Each arm is a process with an engine of dummy weights. In turns, each computes so many prompts, and then decode steps of
so many requests at once, under torch's profiler: kernels on a GPU, operations of torch on a CPU. A row is printed and
written, as JSON with every kernel's name, after every turn; then comes a table of medians. Does not know which kernel
is of which kind (`kernel_kinds`) nor how steps are looked at (`step_profile`).
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers

from benchmarks import deadline, dummy_model, engine_run, engines, machine, sizes  # noqa: E402
from benchmarks.arm import Arm  # noqa: E402
from benchmarks.kernel_kinds import KINDS, OTHER, kind_of  # noqa: E402
from benchmarks.serving_options import add_engine_flags, add_time_flag  # noqa: E402
from benchmarks.serving_report import ratio  # noqa: E402
from benchmarks.step_profile import Profiled, ProfileDecode, ProfilePrefill  # noqa: E402
from benchmarks.turns import out_of_time  # noqa: E402
from benchmarks.workloads import Workload  # noqa: E402

NAMED_SHARE = 0.005
"""Kernels of no known kind are named from this share of a step's time on."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    sizes.add_flags(made)
    add_engine_flags(made, arms="stock,text-only:0.75")
    add_time_flag(made)
    made.add_argument("--prefill", type=sizes.numbers, default="16", help="comma list of prompts at once; 0 for none")
    made.add_argument("--decode", type=sizes.numbers, default="1,12", help="comma list of requests; 0 for none")
    made.add_argument("--steps", type=int, default=20, help="decode steps of a turn")
    made.add_argument("--images", type=int, default=1, help="in a prompt")
    made.add_argument("--text-tokens", type=int, default=62)
    made.add_argument("--repeats", type=int, default=2, help="turns of each arm")
    made.add_argument("--out", type=Path, default=Path("profile"), help="path without suffix")
    return made


def main(argv: list[str] | None = None) -> int:
    return engine_run.measured(parser().parse_args(argv), run, show)


def show(report: engine_run.Report) -> None:
    console = Console(width=200)
    console.print(table(report))
    for line in unknown(report):
        console.print(line, markup=False, highlight=False)


def run(args: argparse.Namespace, geometry: dummy_model.Geometry, folder: Path, report: engine_run.Report) -> None:
    """Start the arms and take their turns; `report` is filled as they come."""
    report |= {
        "geometry": asdict(geometry),
        **machine.described(),
        "turns": [],
    }
    decodes = [ProfileDecode(number, args.steps, args.images, args.text_tokens) for number in args.decode if number]
    longest = max((one.reply_tokens for one in decodes), default=1)
    # Replies are ended long before their limit, which an admission that reckons with it would not find room for.
    names = [replace(name, stock_admission=not name.is_stock) for name in args.arms]
    of_engine = argparse.Namespace(**(vars(args) | {"images": [args.images], "output": [longest], "arms": names}))
    with engines.running(of_engine, geometry, folder) as arms:
        for arm in arms.values():
            arm.run(Workload(2, 2, args.images, args.text_tokens, 4, seed=999))  # warm up
        for turn in turns(args, arms):
            report["turns"].append(turn)
            engine_run.write(report, args)
            print(describe(turn), flush=True)


def turns(args: argparse.Namespace, arms: dict[str, Arm]) -> Iterator[dict[str, Any]]:
    """A row after each turn; which arm goes first alternates.

    Raises
    ------
    OutOfTime
        As of `turns.measure`.
    """
    for repeat in range(args.repeats):
        phases: list[tuple[str, ProfilePrefill | ProfileDecode]] = [
            *((f"prefill of {n}", ProfilePrefill(n, args.images, args.text_tokens, repeat)) for n in args.prefill if n),
            *(
                (f"decode step of {n}", ProfileDecode(n, args.steps, args.images, args.text_tokens, repeat))
                for n in args.decode
                if n
            ),
        ]
        for phase, task in phases:
            for name in list(arms) if repeat % 2 == 0 else list(reversed(arms)):
                if deadline.over(args.seconds):
                    print(out_of_time(repeat, args.repeats), flush=True)
                    return
                yield row(phase, name, repeat, arms[name].run(task))


def row(phase: str, arm: str, repeat: int, got: Profiled) -> dict[str, Any]:
    """One turn: seconds by kind, of all steps of a prefill and of one decode step."""
    per = 1 if phase.startswith("prefill") else max(1, got.steps)
    kinds = dict.fromkeys(KINDS, 0.0)
    for kernel in got.kernels:
        kinds[kind_of(kernel.name)] += kernel.seconds / per
    kernels = sorted((asdict(kernel) | {"kind": kind_of(kernel.name)} for kernel in got.kernels), key=_seconds)
    fits = {"phase": phase, "arm": arm, "repeat": repeat, "steps": got.steps, "tokens": got.tokens}
    return fits | {
        "device": got.device,
        "wall": got.wall / per,
        "all": sum(kinds.values()),
        "kinds": kinds,
        "kernels": kernels,
    }


def _seconds(kernel: dict[str, Any]) -> float:
    return -float(kernel["seconds"])


def describe(turn: dict[str, Any]) -> str:
    if not turn["steps"]:
        return f"{turn['arm']:>16}  {turn['phase']}: so many requests do not fit in the KV cache"
    if not turn["kernels"]:
        return f"{turn['arm']:>16}  {turn['phase']}: torch's profiler has seen no kernel"
    kinds = "  ".join(f"{kind} {1000 * seconds:.2f}" for kind, seconds in turn["kinds"].items())
    return (
        f"{turn['arm']:>16}  {turn['phase']}  turn {turn['repeat'] + 1}: {1000 * turn['all']:.2f} ms of "
        f"{1000 * turn['wall']:.2f}  {kinds}"
    )


def table(report: engine_run.Report) -> Table:
    """Medians over repeats, in ms, and the ratio of all to stock's with its spread; a row for an arm in a phase."""
    device = any(turn["device"] for turn in report["turns"])
    made = Table(title=f"{'kernel time' if device else 'own CPU time of operations'} by kind, ms", title_justify="left")
    columns = ("phase", "arm", "all", "of stock", *KINDS, "other, share", "wall", "prompt tokens/s")
    for column in columns:
        is_name = column in ("phase", "arm")
        made.add_column(column, justify="left" if is_name else "right", no_wrap=is_name)
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in report["turns"]:
        if turn["kernels"]:
            cells.setdefault((turn["phase"], turn["arm"]), []).append(turn)
    for (phase, arm), own in cells.items():
        whole = statistics.median(turn["all"] for turn in own)
        kinds = {kind: statistics.median(turn["kinds"][kind] for turn in own) for kind in KINDS}
        of_stock = ratio(own, cells.get((phase, "stock"), []), lambda turn: float(turn["all"]))
        rate = statistics.median(turn["tokens"] / turn["all"] for turn in own)
        made.add_row(
            phase,
            arm,
            f"{1000 * whole:.2f}",
            f"{of_stock[0]:.3f} ({of_stock[1]:.3f} to {of_stock[2]:.3f})" if of_stock else "-",
            *(f"{1000 * kinds[kind]:.2f}" for kind in KINDS),
            f"{kinds[OTHER] / whole:.1%}",
            f"{1000 * statistics.median(turn['wall'] for turn in own):.2f}",
            f"{rate:.0f}" if rate else "-",
        )
    return made


def unknown(report: engine_run.Report) -> list[str]:
    """Kernels of no known kind that take more than `NAMED_SHARE` of a turn, with the greatest share that each took."""
    shares: dict[str, float] = {}
    for turn in report["turns"]:
        whole = sum(kernel["seconds"] for kernel in turn["kernels"])
        for kernel in turn["kernels"]:
            share = kernel["seconds"] / whole
            if kernel["kind"] == OTHER and share > NAMED_SHARE:
                shares[kernel["name"]] = max(share, shares.get(kernel["name"], 0.0))
    ranked = sorted(shares.items(), key=lambda one: -one[1])
    return [f"of no known kind: {share:.1%} {name[:120]}" for name, share in ranked]


if __name__ == "__main__":
    raise SystemExit(main())
