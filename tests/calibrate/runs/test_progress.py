"""Progress: on standard error only, with rate and time left, on a terminal and in a log."""

import os
import pty
import subprocess
import sys

from calibrate.runs import progress
from calibrate.runs.progress import progress_bar


def test_a_log_gets_lines_now_and_then(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress_bar("calibrating", 100, 20) as advance:
        for _ in range(16):  # 5 every 2 seconds
            now[0] += 2
            advance(5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "calibrating 25/100, 2.5/s, 30 s left",
        "calibrating 50/100, 2.5/s, 20 s left",
        "calibrating 75/100, 2.5/s, 10 s left",
        "calibrating 100/100, 2.5/s, 0 s left",
    ]


def test_a_terminal_gets_a_bar():
    code = (
        "import time; from calibrate.runs.progress import progress_bar\n"
        "with progress_bar('calibrating', 8, 2) as advance:\n"
        "    for _ in range(3): time.sleep(0.01); advance(2)"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=environment, timeout=60
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.stdout == b""
    assert "calibrating" in shown
    assert "8/8" in shown
    assert "/s" in shown


def test_nothing_is_shown_when_nothing_shall_be(capfd):
    with progress_bar("calibrating", 4, shown=False) as advance:
        advance(4)
    assert capfd.readouterr() == ("", "")
