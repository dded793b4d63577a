"""The turns of `benchmarks.serving`: which arm does what when, and the report that grows with each of them.

Does not know how an engine works on a turn (`workloads`, `capacity_count`), nor how results are shown.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks import deadline, machine, serving_report
from benchmarks.arm import Arm
from benchmarks.capacity_count import Capacity
from benchmarks.dummy_model import Geometry, plan
from benchmarks.engines import plan_of
from benchmarks.workloads import Prefill, Workload
from profiles.planning.savings import ideal_concurrency

Report = dict[str, Any]


def measure(args: argparse.Namespace, geometry: Geometry, arms: dict[str, Arm]) -> Iterator[tuple[Report, str]]:
    """The report as it grows, and a line for what is new in it: after each turn.

    Raises
    ------
    OutOfTime
        `args.seconds` were over in the first repeat. Later the turns that are left are left out.
    """
    report: Report = {
        "geometry": asdict(geometry),
        **machine.described(),
        "arms": {name: dict(arm.facts) for name, arm in arms.items()},
        "references": [name.text for name in args.arms if name.is_stock or name.is_text_only],
        "capacity": [],
        "prefill": [],
        "turns": [],
        "runs": [],
        "overview": [],
    }
    for name in args.arms:
        treated = plan_of(name, geometry) or plan(geometry)
        ideal = ideal_concurrency(treated, args.text_tokens, geometry.image_tokens * args.images[0])
        report["arms"][name.text]["ideal_concurrency"] = ideal
        arms[name.text].run(Workload(2, 2, max(args.images), args.text_tokens, 4, seed=999))  # warm up
    yield report, "engines are up"
    if args.capacity:
        yield from _capacity(args, arms, report)
    for repeat in range(args.repeats):
        if args.prefill:
            yield from _prefill(args, arms, report, repeat)
        for images, output in itertools.product(args.images, args.output):
            best: dict[str, float] = dict.fromkeys(arms, 0.0)
            for concurrency in filter(None, args.concurrency):
                for name in _in_turn(best, repeat):
                    if deadline.over(args.seconds):
                        yield report, out_of_time(repeat, args.repeats)
                        return
                    requests = max(2, 2 * concurrency) if args.requests is None else args.requests
                    asked = Workload(
                        requests, concurrency, images, args.text_tokens, output, seed=repeat, cpu_time=args.cpu_time
                    )
                    got = arms[name].run(asked)
                    asked_for = {"images": images, "output": output, "concurrency": concurrency, "requests": requests}
                    report["turns"].append({"arm": name, "repeat": repeat, **asked_for, **asdict(got)})
                    serving_report.update(report)
                    yield report, serving_report.describe_turn(report["turns"][-1])
                    best[name] = max(best[name], got.tokens_per_second)
                    if got.tokens_per_second < args.give_up * best[name]:
                        del best[name]


def out_of_time(repeat: int, repeats: int) -> str:
    """What is said where repeat number `repeat`, from 0 on, cannot be taken to its end.

    Raises
    ------
    OutOfTime
        Where it is the first.
    """
    if repeat == 0:
        raise deadline.OutOfTime("the time is over, and not every arm has had its first turns")
    return f"the time is over: all turns of {repeat} of {repeats} repeats are there"


def _capacity(args: argparse.Namespace, arms: dict[str, Arm], report: Report) -> Iterator[tuple[Report, str]]:
    for images, name in itertools.product(args.images, arms):
        got = arms[name].run(Capacity(args.max_num_seqs, images, args.text_tokens))
        report["capacity"].append({"arm": name, "images": images, **asdict(got)})
        serving_report.update(report)
        yield report, serving_report.describe_capacity(report["capacity"][-1])


def _prefill(
    args: argparse.Namespace, arms: dict[str, Arm], report: Report, repeat: int
) -> Iterator[tuple[Report, str]]:
    for images in args.images:
        for name in _in_turn(arms, repeat):
            got = arms[name].run(Prefill(args.prefill, images, args.text_tokens, repeat, args.cpu_time))
            row = {"arm": name, "repeat": repeat, "images": images, "requests": args.prefill, **asdict(got)}
            report["prefill"].append(row)
            serving_report.update(report)
            yield report, serving_report.describe_prefill(row)


def _in_turn(arms: dict[str, Any], repeat: int) -> list[str]:
    """Which goes first alternates."""
    return list(arms) if repeat % 2 == 0 else list(reversed(arms))
