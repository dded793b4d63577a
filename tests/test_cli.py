"""The command line as a user meets it: help, start-up, interrupts, and one line for each mistake."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from vhserve.cli import INTERRUPTED, main
from vhserve.command_line import Vhserve
from vhserve.commands.flags import all_commands, commands, flags, options, passes_flags_on
from vhserve.standard_output import PIPE_CLOSED

COMMANDS = {" ".join(words): model for words, model in all_commands(Vhserve)}


def vhserve(*args: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vhserve.cli", *args]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=120)


def spoken(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, output and error output of a command line that is refused before anything heavy is imported."""
    code = main(args)
    seen = capsys.readouterr()
    return code, seen.out, seen.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_flag_in_its_words(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, page, _ = spoken(capsys, *command.split(), "--help")
    assert code == 0
    words = "".join(page.split())  # argparse breaks lines behind hyphens, too
    model = COMMANDS[command]
    assert "".join((model.__doc__ or "").partition("\n")[0].split()) in words
    for flag, field in options(model).items():
        assert flag in words or f"--no-{flag[2:]}" in words
        assert field.description, f"{flag} has no description"
        assert "".join(field.description.split()) in words, flag
    assert "default: None" not in page
    assert "default: False" not in page
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("command", ["", *(name for name in COMMANDS if commands(COMMANDS[name]))])
def test_every_command_has_its_line_in_the_list(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, page, _ = spoken(capsys, *command.split(), "--help")
    assert code == 0
    words = "".join(page.split())
    for name, model in commands(COMMANDS.get(command, Vhserve)).items():
        assert "".join(f"{name}{(model.__doc__ or '').partition(chr(10))[0]}".split()) in words


def test_without_arguments_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, page, _ = spoken(capsys)
    assert code == 0
    assert all(name in page for name in commands(Vhserve))


def test_version() -> None:
    assert vhserve("--version").stdout.startswith("vhserve ")


def test_variables_of_the_environment_are_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in commands(Vhserve):
        monkeypatch.setenv(name.upper(), "something else")
    assert main(["models", "--json"]) == 0


@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["profile", "--help"]])
def test_output_that_nobody_reads(words: list[str]) -> None:
    """As of `vhserve models | head -1`: no traceback, and the code that shells give for it."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = vhserve(*words, stdout=writing)
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == (0 if "--help" in words else PIPE_CLOSED)  # argparse passes over it


@pytest.mark.parametrize("words", [["models"], ["models", "--json"]])
def test_output_that_has_no_room(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = vhserve(*words, stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr.startswith("vhserve: error: cannot write to standard output: No space left on device; expected ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["models"], ["models", "--json"]])
def test_output_that_is_closed(words: list[str]) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "vhserve.cli", *words]
    done = subprocess.run(closed, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


MISTAKES: list[tuple[list[str], str]] = [
    (["plan", "missing.json", "--remove", "4"], "missing.json"),
    (["plan", "missing.json", "--remove", "-4"], "--remove"),
    (["plan", "missing.json", "--stage", "latest"], "did you mean late?"),
    (["plan", "missing.json", "--bogus"], "--bogus"),
    (["plan"], "profile"),
    (["profile"], "show, diff or import"),
    (["profile", "show", "missing.json"], "missing.json"),
    (["profile", "show", "missing.json", "--treatment", "text-only"], "did you mean text_only?"),
    (["profile", "diff", "missing.json"], "second"),
    (["profile", "shwo", "missing.json"], "did you mean show?"),
    (["nonsense"], "nonsense"),
    (["calibrat"], "did you mean calibrate"),
    (["calibrate", "--sample", "3"], "did you mean --samples"),
    (["calibrate", "--no-effect"], "did you mean --no-effects"),
    (["calibrate", "--samples"], "--samples"),
    (["calibrate", "--samples", "1" + 5000 * "0"], "--samples"),
    (
        ["calibrate", "mine.jsonl"],
        "no place for mine.jsonl; expected vhserve calibrate [options]; see vhserve calibrate",
    ),
    (["plan", "one.json", "two.json", "--remove", "4"], "for two.json; expected vhserve plan PROFILE [options]; see"),
    (["plan", "shwo", "plan.json"], "did you mean plan show?"),
    (["profile", "diff", "1.json", "2.json", "3.json"], "vhserve profile diff FIRST SECOND [options]"),
    (["calibrate", "--dataset", "sinthetic", "--out", "p.json"], "did you mean synthetic?"),
    (["calibrate", "--dataset", "popee:x", "--out", "p.json"], "did you mean pope?"),
    (["calibrate", "--model", "llava1.5-7b", "--out", "p.json"], "did you mean llava-1.5-7b"),
    (["evaluate", "--dataset", "sinthetic"], "did you mean synthetic?"),
    (["calibrate", "--split", "chosing", "--out", "p.json"], "did you mean choosing?"),
    (["analyze", "-k", "1000", "--out", "x.html"], "1000 heads are to be treated"),
    (["analyze", "-k", "4,many", "--out", "x.html"], "'many'"),
    (["serve", "demo", "--plann", "x.json"], "did you mean --plan"),
    (["serve", "demo", "--max-modell-len", "512"], "did you mean --max-model-len"),
    (["demo", "--remove", "1000"], "the model has 96"),
    (["demo", "--remove", "60", "--text-only", "30"], "unprotected"),
    (["demo", "--stage", "late", "--remove", "33", "--text-only", "0"], "stage late has 32"),
    (["demo", "--remove", "96", "--text-only", "0", "--protect-top", "0"], "all heads of the model"),
    (["demo", "--select", "top"], "--protect-top"),
    (["demo", "--remove", "0", "--text-only", "0"], "nothing to compare"),
    (["demo", "--kv-cache-gib", "60000"], "GiB of memory"),
    (["demo", "--model", "demmo"], "did you mean demo?"),
]


@pytest.mark.parametrize(("args", "part"), MISTAKES, ids=[" ".join(one)[:40] for one, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(
    args: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, said = spoken(capsys, *args)
    assert code == 2
    assert part.lower() in said.lower()
    assert len(said.splitlines()) == 1
    assert len(said) < 600
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "modules"),
    [
        (["calibrate", "--dataset", "sinthetic"], ("torch", "transformers", "scipy", "matplotlib")),
        (["calibrate", "--dataset", "missing.jsonl"], ("torch", "transformers", "scipy", "matplotlib")),
        (["calibrate", "--model", "no-such-model"], ("torch", "transformers", "scipy", "matplotlib")),
        (["evaluate", "--dataset", "sinthetic"], ("torch", "transformers", "scipy", "openai")),
        (["demo", "--remove", "1000"], ("torch", "transformers", "vllm", "openai")),
    ],
    ids=" ".join,
)
def test_a_mistake_costs_no_heavy_import(args: list[str], modules: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys; from vhserve.cli import main; code = main(sys.argv[1:]); "
        f"heavy = [name for name in {modules} if name in sys.modules]; sys.exit(' '.join(heavy) if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr


WRONG_NUMBERS = {
    int: ("1" + 30 * "0", "1" + 5000 * "0", "-1", "nan", "0.5", "", "x"),
    float: ("nan", "inf", "-inf", "1e400", "-1", "1e30", "", "x"),
}


def numeric(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, type]]:
    """Numeric options of a command: their flag, their field, and which kind of number it takes."""
    for flag, field in options(model).items():
        for kind in (int, float):
            if kind.__name__ in str(field.annotation):
                yield flag, field, kind


@pytest.mark.parametrize("command", [name for name, model in COMMANDS.items() if any(numeric(model))])
def test_every_number_has_bounds(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _, field, kind in numeric(COMMANDS[command]):
        values: TypeAdapter[object] = TypeAdapter(Annotated[field.annotation, field, *field.metadata])
        for value in WRONG_NUMBERS[kind]:
            with pytest.raises(ValidationError):
                values.validate_python([value] if "list[" in str(field.annotation) else value)
    monkeypatch.chdir(tmp_path)
    flag = next(numeric(COMMANDS[command]))[0]
    code, out, said = spoken(capsys, *command.split(), "a.json", "b.json", f"{flag}=1" + 30 * "0")
    assert (code, out, len(said.splitlines())) == (2, "", 1)


INTERRUPTIBLE = (
    ["--version"],
    ["models"],
    ["plan", "missing.json", "--remove", "4"],
    ["calibrate", "--samples", "400", "--batch-size", "1"],
    ["evaluate", "--dataset", "missing.jsonl"],
    ["demo"],
)

STARTED = """
import sys, vhserve.cli
print("started", flush=True)
sys.exit(vhserve.cli.main())
"""


@pytest.mark.parametrize("args", INTERRUPTIBLE, ids=" ".join)
def test_an_interrupt_while_starting_is_exit_code_130_and_one_line(
    args: list[str], tmp_path: Path, random_seed: int
) -> None:
    delay = random.Random(random_seed).uniform(0, 0.6)
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, *args],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said, (delay, said)
    if process.returncode in (INTERRUPTED, -signal.SIGINT):
        assert len([line for line in said.splitlines() if "interrupted" in line]) <= 1, said
    else:  # it had ended by then
        assert args[0] not in ("calibrate", "demo"), (delay, process.returncode, said)


def test_flags_that_a_command_passes_on_are_not_its_own() -> None:
    assert [name for name, model in COMMANDS.items() if passes_flags_on(model)] == ["serve"]
    assert "--port" not in flags(COMMANDS["serve"])
