"""Processes that a command starts: waited for, named when they fail, and none outlives the command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vhserve.child_processes import free_port, run_step, serving
from vhserve.errors import ServerNotReady, StepFailed

PYTHON = sys.executable

# Answers /health, and starts a child that would outlive it; tells both numbers in a file.
SERVER = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
open(sys.argv[2] + ".new", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[2] + ".new", sys.argv[2])
server.serve_forever()
"""

# A demo in small: serves, says that it does, and waits for a signal.
DEMO = """
import sys, time
from pathlib import Path
from vhserve.child_processes import ending_on_signals, serving
server, port, told, log = sys.argv[1:]
with ending_on_signals(), serving("s", [sys.executable, "-c", server, port, told], int(port), Path(log), {}, 60):
    print("serving", flush=True)
    time.sleep(300)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pids: list[int], within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_a_server_lives_as_long_as_its_block_and_so_do_its_children(tmp_path: Path) -> None:
    told, port = tmp_path / "pids", free_port()
    command = [PYTHON, "-c", SERVER, str(port), str(told)]
    with serving("s", command, port, tmp_path / "s.log", os.environ, 60) as seconds:
        pids = [int(pid) for pid in told.read_text().split()]
        assert all(map(alive, pids))
        assert 0 < seconds < 60
    assert gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_ends_its_server(tmp_path: Path, number: signal.Signals) -> None:
    told, port = tmp_path / "pids", free_port()
    demo = subprocess.Popen(
        [PYTHON, "-c", DEMO, SERVER, str(port), str(told), str(tmp_path / "s.log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert demo.stdout is not None
        assert demo.stdout.readline() == "serving\n"
        pids = [int(pid) for pid in told.read_text().split()]
        assert all(map(alive, pids))
        demo.send_signal(number)
        code = demo.wait(timeout=30)
    finally:
        demo.kill()
        demo.wait()
        if demo.stdout:
            demo.stdout.close()
    assert code in (128 + number, -number)
    assert gone(pids)


def test_a_server_that_dies_is_named_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "s.log"
    command = [PYTHON, "-c", "import sys; print('no such head'); sys.exit(3)"]
    with (
        pytest.raises(ServerNotReady, match=r"server pruned ended with exit code 3.*no such head.*s\.log"),
        serving("pruned", command, free_port(), log, os.environ, 60),
    ):
        pytest.fail("it is not ready")
    assert log.read_text() == "no such head\n"


def test_a_server_that_never_gets_ready_is_ended(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    with (
        pytest.raises(ServerNotReady, match="not ready after 2 s"),
        serving("s", [PYTHON, "-c", code], free_port(), tmp_path / "s.log", os.environ, 2),
    ):
        pytest.fail("it is not ready")
    assert gone([int(told.read_text())])


def test_a_step_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "plan.log"
    run_step("plan", [PYTHON, "-c", "print('fine')"], log, os.environ, 60)
    assert log.read_text() == "fine\n"
    with pytest.raises(StepFailed, match=r"step plan ended with exit code 2: too large.*plan\.log"):
        run_step("plan", [PYTHON, "-c", "import sys; print('too large'); sys.exit(2)"], log, os.environ, 60)
    with pytest.raises(StepFailed, match="longer than 1 s"):
        run_step("plan", [PYTHON, "-c", "import time; time.sleep(300)"], log, os.environ, 1)
