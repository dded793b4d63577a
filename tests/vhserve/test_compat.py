"""`vhserve.compat` in fresh processes: that importing it is cheap, and how it tells why an engine ended."""

import subprocess
import sys
import time
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
from vhserve.compat.processes import end_child_processes_with_this_one, mend_child_process

mend_child_process()

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
