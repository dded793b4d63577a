"""The serving benchmark as a run of its own, with real engines, that is ended in the middle."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SIZE = "--dtype float32 --layers 2 --heads 4 --hidden-size 256 --image-tokens 144 --kv-gib 0.02 --threads 1"
TURNS = "--arms stock,text-only:0.5 --capacity --prefill 4 --concurrency 1,4 --requests 4 --output 16 --repeats 500"


@pytest.mark.long
@pytest.mark.vllm
def test_a_run_that_is_ended_keeps_its_rows(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.serving",
        *SIZE.split(),
        *TURNS.split(),
        "--out",
        str(tmp_path / "run"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        printed = []
        for line in run.stdout:
            printed.append(line)
            if "concurrency   4  turn 1" in line and "text-only" in line:
                break
        run.send_signal(signal.SIGTERM)
        rest = run.stdout.read()
        assert run.wait(60) == 128 + signal.SIGTERM, rest
    report = json.loads((tmp_path / "run.json").read_text())
    turns = [line for line in [*printed, *rest.splitlines()] if "  turn " in line and "concurrency" in line]
    assert len(report["turns"]) == len(turns) >= 4
    assert [one["arm"] for one in report["capacity"]] == ["stock", "text-only:0.5"]
    assert {one["arm"] for one in report["prefill"]} == {"stock", "text-only:0.5"}
    assert all(one["prompt_tokens"] > 4 * 144 for one in report["prefill"])
    stock, plan = report["overview"]
    assert plan["held"] > stock["held"] == next(iter(report["capacity"]))["requests"]
    assert set(plan["best_of"]) == {"stock"}
    assert "each at its own best" in rest
    assert (tmp_path / "run.png").exists()
    assert {one.name for one in tmp_path.iterdir()} == {"run.json", "run.png", "run_arm0.log", "run_arm1.log"}
    assert "vLLM" in (tmp_path / "run_arm1.log").read_text()
