"""`vhserve.compat` in fresh processes: that importing it is cheap, and how it tells why an engine ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_modules_is_cheap():
    out = run(
        "from vhserve.compat import *; import sys\n"
        "print([m for m in ('torch', 'vllm', 'transformers') if m in sys.modules])"
    )
    assert out == "[]"


def test_child_processes_are_told_exactly_where_something_had_to_be_mended():
    out = run(
        "import os; from vhserve.compat import processes\n"
        "from profiles.torchvision_import import ensure_torchvision, was_mended\n"
        "def told(): processes.mend_child_processes(); return bool(os.environ.get(processes.MENDED))\n"
        "print(told()); ensure_torchvision(); print(told() == was_mended())"
    )
    assert out.split() == ["False", "True"]


def test_an_engine_that_ended_by_itself_is_told_from_one_that_was_told_to():
    out = run(
        "import multiprocessing, os, signal, sys; from types import SimpleNamespace as Some\n"
        "from vhserve.compat.api_server import engine_failed\n"
        "start = multiprocessing.get_context('fork').Process\n"
        "def ended(work, *arguments):\n"
        "    process = start(target=work, args=arguments); process.start(); process.join(); return process\n"
        "def failed(*processes):\n"
        "    resources = Some(engine_manager=Some(processes=processes))\n"
        "    return engine_failed(Some(engine_core=Some(resources=resources)))\n"
        "def end(how): os.kill(os.getpid(), how)\n"
        "fine, told, wrong = ended(sys.exit, 0), ended(end, signal.SIGTERM), ended(sys.exit, 1)\n"
        "killed = ended(end, signal.SIGKILL)\n"
        "print(failed(fine, told), failed(wrong), failed(fine, killed))\n"
        "print(engine_failed(Some(engine_core=Some(resources=Some(engine_manager=None)))))"
    )
    assert out.split() == ["False", "True", "True", "False"]


FAMILY = """
import multiprocessing, os, sys, time
import vhserve.cli  # the main module of a server, which its processes import first
from vhserve.compat.processes import end_child_processes_with_this_one

def sleep(method, depth, file):
    with open(file, "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    if depth:
        multiprocessing.get_context(method).Process(target=sleep, args=(method, depth - 1, file)).start()
    time.sleep(60)

if __name__ == "__main__":
    end_child_processes_with_this_one()
    sleep(sys.argv[1], 2, sys.argv[2])
"""
"""A process, its child and its grandchild, as a server, its engine and its worker."""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part in it is Linux's")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_children_and_theirs_end_with_a_process_that_is_killed(method: str, tmp_path: Path) -> None:
    script, file = tmp_path / "family.py", tmp_path / "pids"
    script.write_text(FAMILY)
    process = subprocess.Popen([sys.executable, str(script), method, str(file)])
    deadline = time.monotonic() + 60
    while len(pids := file.read_text().split() if file.exists() else []) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    family = [psutil.Process(int(pid)) for pid in pids]
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert psutil.wait_procs(family[1:], timeout=10)[1] == []


def test_a_child_whose_parent_has_ended_before_it_could_hear_of_it_ends() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for parent, code in ((gone.pid, 1), (os.getppid(), 0)):  # the second one lives, and is not the parent
        command = [sys.executable, "-c", "import vhserve.cli"]
        environment = {**os.environ, "VHSERVE_PARENT_PROCESS": str(parent)}
        assert subprocess.run(command, env=environment, timeout=120, check=False).returncode == code


STARTING = """
import multiprocessing, signal, sys, time
from vhserve.compat.processes import end_child_processes_with_this_one
from vhserve.compat.start_signals import Signals

def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

def told(number, frame):
    raise KeyboardInterrupt

if __name__ == "__main__":
    end_child_processes_with_this_one()
    signals = Signals()
    signals.started = sys.argv[1] == "started"
    signals.signal(signals.SIGTERM, told)
    child = multiprocessing.get_context("fork").Process(target=deaf)
    child.start()
    print(child.pid, flush=True)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        if sys.argv[1] == "swallows":
            time.sleep(600)
"""
"""A server that starts an engine which does not hear, and that swallows what it is told, or waits for its engine."""


@pytest.mark.parametrize("how", ["swallows", "waits"])
def test_what_is_told_to_end_while_it_starts_ends_soon_with_its_children(how: str, tmp_path: Path) -> None:
    with starting(how, tmp_path) as (process, child):
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        assert psutil.wait_procs([child], timeout=10)[1] == []
        assert "the server was ended after 5 s" in (tmp_path / "log").read_text()


def test_what_has_started_has_its_time(tmp_path: Path) -> None:
    with starting("started", tmp_path) as (process, child):
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(7)
        assert child.is_running()


@contextmanager
def starting(how: str, folder: Path) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    (folder / "starting.py").write_text(STARTING)
    with (folder / "log").open("w") as log:
        command = [sys.executable, str(folder / "starting.py"), how]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        yield process, psutil.Process(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.vllm
def test_vllm_has_what_is_put_in_its_place_while_it_starts() -> None:
    code = (
        "from profiles.torchvision_import import ensure_torchvision; ensure_torchvision()\n"
        "import signal\n"
        "from vllm.entrypoints.cli import serve; from vllm.entrypoints.launchers.api_server import entry\n"
        "print(serve.signal is signal, entry.signal is signal, callable(serve.wait_for_completion_or_failure))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    assert done.stdout.splitlines()[-1] == "True True True"
