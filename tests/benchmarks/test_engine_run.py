"""How a benchmark with engines begins and ends, whatever it measures; engines are not started."""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from benchmarks import deadline, engine_run, profile, serving, serving_options, turns
from benchmarks.dummy_model import SCALED_DOWN, Geometry
from benchmarks.machine import Machine
from benchmarks.workloads import Result


@pytest.mark.parametrize("benchmark", [serving, profile])
def test_a_refused_arm_ends_the_benchmark_before_anything_starts(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Machine, "here", Machine)
    assert benchmark.main(["--arms", "stock,stock+int4", "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "stock+int4" in printed.err
    assert not list(tmp_path.iterdir())


def test_time_that_is_over_in_the_first_turns_is_said_and_no_success(
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = serving_options.parser().parse_args(["--arms", "stock", "--seconds", "0.001"])
    shown: list[engine_run.Report] = []

    def measure(args: argparse.Namespace, geometry: Geometry, folder: Path, report: engine_run.Report) -> None:
        report["result"] = 1.5
        if deadline.over(args.seconds):
            print(turns.out_of_time(3, 5))
            print(turns.out_of_time(0, 5))

    assert engine_run.measured(args, measure, shown.append) == 1
    assert [report["result"] for report in shown] == [1.5]
    assert capsys.readouterr().out.splitlines() == [
        "the time is over: all turns of 3 of 5 repeats are there",
        "the time is over, and not every arm has had its first turns",
    ]
    assert not deadline.over(None)


class AtOnce:
    """An arm that is done with everything at once."""

    facts: ClassVar[dict[str, int]] = {"blocks": 9}

    def run(self, task: object) -> Result:
        return Result(1.0, 8, [0.5], [0.1], prompt_tokens=9)


@pytest.mark.parametrize(("turns_in_time", "repeats"), [(3, 0), (4, 1), (7, 1), (99, 3)])
def test_turns_end_when_the_time_is_over(
    turns_in_time: int, repeats: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = iter([False] * turns_in_time + [True] * 99)
    monkeypatch.setattr(deadline, "over", lambda seconds: next(asked))
    flags = ["--arms", "stock,text-only:0.5", "--concurrency", "1,4", "--repeats", "3", "--out", str(tmp_path / "out")]
    args = serving_options.parser().parse_args(flags)
    lines: list[str] = []
    report: dict[str, Any] = {}
    arms: Any = {"stock": AtOnce(), "text-only:0.5": AtOnce()}
    with pytest.raises(deadline.OutOfTime) if repeats == 0 else nullcontext():
        for report, line in turns.measure(args, SCALED_DOWN, arms):  # noqa: B007  # the last one
            lines.append(line)
    assert len(report["turns"]) == min(turns_in_time, 12)
    assert ("the time is over" in lines[-1]) == (repeats in (1, 2))
    assert len(report["overview"]) == 2


@pytest.mark.parametrize("results", [[], [1.5]])
def test_a_run_that_fails_shows_and_keeps_what_it_has(results: list[float], tmp_path: Path) -> None:
    args = serving_options.parser().parse_args(["--arms", "stock", "--out", str(tmp_path / "new" / "out")])
    folders: list[Path] = []
    shown: list[engine_run.Report] = []

    def measure(args: argparse.Namespace, geometry: Geometry, folder: Path, report: engine_run.Report) -> None:
        folders.append(folder)
        (folder / "plan.json").touch()
        for result in results:
            report["result"] = result
            engine_run.write(report, args)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engine_run.measured(args, measure, shown.append)
    assert [report["result"] for report in shown] == results
    assert [json.loads(file.read_text()) for file in tmp_path.glob("new/*")] == shown
    assert not folders[0].exists()
