"""`vhserve.compat` in fresh processes: that importing it is cheap, and how it tells why an engine ended."""

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_module_is_cheap():
    out = run("import vhserve.compat, sys; print([m for m in ('torch', 'vllm', 'transformers') if m in sys.modules])")
    assert out == "[]"


def test_child_processes_are_told_exactly_where_something_had_to_be_mended():
    out = run(
        "import os; from vhserve import compat\n"
        "from profiles.torchvision_import import ensure_torchvision, was_mended\n"
        "def told(): compat.mend_child_processes(); return bool(os.environ.get(compat.MENDED))\n"
        "print(told()); ensure_torchvision(); print(told() == was_mended())"
    )
    assert out.split() == ["False", "True"]


def test_an_engine_that_ended_by_itself_is_told_from_one_that_was_told_to():
    out = run(
        "import multiprocessing, os, signal, sys; from types import SimpleNamespace as Some\n"
        "from vhserve.compat import engine_failed\n"
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
