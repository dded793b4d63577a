"""How a benchmark with engines begins and ends, whatever it measures; engines are not started."""

import argparse
import json
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import deadline, engine_run, profile, serving, serving_options, turns
from benchmarks.dummy_model import Geometry
from benchmarks.machine import Machine


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
