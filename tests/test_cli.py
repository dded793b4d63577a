"""The command line as a user meets it: help, start-up cost, and one line for each mistake."""

import subprocess
import sys

import pytest

from vhserve.cli import Vhserve

COMMANDS = sorted(Vhserve.model_fields)


def vhserve(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vhserve.cli", *args], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_field(command: str) -> None:
    done = vhserve(command, "--help")
    assert done.returncode == 0, done.stderr
    model = Vhserve.model_fields[command].annotation
    fields = next(part for part in model.__args__ if part is not type(None)).model_fields
    for name, field in fields.items():
        if field.description:
            assert " ".join(field.description.split()[:3]) in " ".join(done.stdout.split()), name


def test_without_arguments_prints_help() -> None:
    done = vhserve()
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout


def test_version() -> None:
    assert vhserve("--version").stdout.startswith("vhserve ")


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["plan", "missing.json", "--remove", "4"], "missing.json"),
        (["plan", "missing.json", "--remove", "-4"], "--remove"),
        (["plan", "missing.json", "--stage", "latest"], "--stage"),
        (["plan", "missing.json", "--bogus"], "--bogus"),
        (["plan"], "profile"),
        (["profile"], "show, diff or import"),
        (["profile", "show", "missing.json"], "missing.json"),
        (["profile", "show", "missing.json", "--treatment", "bogus"], "--treatment 'bogus'"),
        (["profile", "diff", "missing.json"], "second"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args: list[str], part: str) -> None:
    done = vhserve(*args)
    assert done.returncode == 2
    assert part.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
