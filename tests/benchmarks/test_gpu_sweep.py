"""The sweep's script: its commands parse, steps that are done are not run again, and what is missing is said."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks import dropped_tokens, gpu_check, machine, profile, serving_options

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_sweep.sh"
PARSERS = {
    "benchmarks.serving": serving_options.parser,
    "benchmarks.profile": profile.parser,
    "benchmarks.gpu_check": gpu_check.parser,
    "benchmarks.dropped_tokens": dropped_tokens.parser,
}
H100 = machine.Machine("NVIDIA H100 80GB HBM3", (9, 0))


def sweep(*arguments: str, path: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}" if path else os.environ["PATH"]}
    return subprocess.run(
        [str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT, check=False
    )


def dry_run() -> dict[str, list[str]]:
    """Words of each step's command."""
    lines = sweep("--dry-run", "some/where").stdout.splitlines()
    return {step: shlex.split(command) for step, command in (line.split(": ", 1) for line in lines)}


def test_the_dry_run_names_all_steps_and_runs_none() -> None:
    commands = dry_run()
    named = re.findall(r"^ {2}\[([\w-]+)\]=", SCRIPT.read_text(), re.MULTILINE)
    assert sorted(commands) == sorted(named)
    assert {"check", "dropped-tokens", "serving-2304", "serving-576", "fp8", "int4", "decode"} <= set(commands)
    assert {"profile", "capacity-576", "admission"} <= set(commands)
    assert not (ROOT / "some").exists()


def test_every_command_parses_fits_the_machine_and_ends_in_ten_minutes() -> None:
    for step, words in dry_run().items():
        assert words[0] == "timeout"
        assert int(words[2]) <= 600
        start = words.index("python3")
        assert words[start + 1] == "-m"
        args = PARSERS[words[start + 2]]().parse_args(words[start + 3 :])
        assert args.out == Path("some/where") / step
        if words[start + 2] != "benchmarks.dropped_tokens":
            assert 0 < args.seconds < int(words[2])
        if words[start + 2] != "benchmarks.gpu_check":
            assert (args.model, args.dtype) == ("llava-1.6-7b", "bfloat16")
        if hasattr(args, "arms"):
            assert args.kv_gib == 20
            machine.refuse(args.arms, H100, head_size=128, gpu_memory=args.gpu_memory)


def test_all_steps_together_have_the_time_that_is_given(tmp_path: Path, interpreter: str) -> None:
    out = tmp_path / "out"
    words = shlex.split(sweep("--dry-run", "--total", "300", str(out), "decode").stdout)
    assert int(words[3]) == 300 > int(words[words.index("--seconds") + 1]) > 200
    (Path(interpreter) / "python3").write_text("#!/bin/sh\nsleep 1\n")
    ended = sweep("--total", "100", str(out), "check", "decode", "dropped-tokens", path=interpreter)
    assert re.search(r"^decode: not begun, 9\d of 100 s are left$", ended.stdout, re.MULTILINE)
    assert {one.name for one in out.glob("*.done")} == {"check.done", "dropped-tokens.done"}
    assert ended.stdout.splitlines()[-1] == "missing: decode"


@pytest.fixture
def interpreter(tmp_path: Path) -> str:
    """A folder with a `python3` that takes note of its arguments, writes a row, and fails on `benchmarks.profile`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "python3"
    noted = tmp_path / "noted"
    script.write_text(
        f'#!/bin/sh\necho "$2" >> {noted}\nfor last; do :; done\necho "{{}}" > "$last.json"\n'
        'echo "a row"\n[ "$2" != benchmarks.profile ]\n'
    )
    script.chmod(0o755)
    return str(folder)


def test_what_is_done_is_not_run_again_and_what_is_missing_is_said(tmp_path: Path, interpreter: str) -> None:
    out = tmp_path / "out"
    first = sweep(str(out), "check", "profile", "capacity-576", path=interpreter)
    assert first.returncode == 1
    assert first.stdout.splitlines()[-1] == "missing: profile"
    assert "profile: ended with 1" in first.stderr
    assert {one.name for one in out.iterdir()} == {
        *("check.json", "check.log", "check.done", "profile.json", "profile.log"),
        *("capacity-576.json", "capacity-576.log", "capacity-576.done"),
    }
    assert "a row" in (out / "profile.log").read_text()
    (out / "profile.json").write_text("of the first time")
    again = sweep(str(out), "check", "profile", "capacity-576", path=interpreter)
    assert (out / "profile.json.before").read_text() == "of the first time"
    assert "check: done before" in again.stdout
    ran = (tmp_path / "noted").read_text().split()
    assert ran == ["benchmarks.gpu_check", "benchmarks.profile", "benchmarks.serving", "benchmarks.profile"]
    done = sweep(str(out), "check", path=interpreter)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "missing: nothing")


def test_a_step_that_takes_too_long_is_ended_and_missing(tmp_path: Path, interpreter: str) -> None:
    (Path(interpreter) / "python3").write_text("#!/bin/sh\necho begun\nexec sleep 50\n")
    ended = sweep("--limit", "1", str(tmp_path / "out"), "decode", path=interpreter)
    assert "begun" in ended.stdout
    assert "decode: ended with 124" in ended.stderr
    assert ended.stdout.splitlines()[-1] == "missing: decode"


@pytest.mark.parametrize(
    "arguments", [(), ("out", "no-such-step"), ("--no-such-option", "out"), ("--total", "soon", "out")]
)
def test_mistakes_are_refused(arguments: tuple[str, ...]) -> None:
    refused = sweep(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "expected" in refused.stderr or "gpu_sweep.sh [--dry-run]" in refused.stderr
