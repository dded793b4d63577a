"""A process that runs command lines of `vhserve`, one after the other, and has imported nothing heavy.

Judges what every refusal has in common; does not know what is refused.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HOST = """
import contextlib, io, json, sys, time
from vhserve.cli import main
for line in sys.stdin:
    out, err, start = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(json.loads(line))
    heavy = [name for name in ("vllm", "torch", "transformers") if name in sys.modules]
    said = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "heavy": heavy}
    print(json.dumps(said | {"seconds": time.monotonic() - start}), flush=True)
"""


@dataclass
class Said:
    code: int
    out: str
    err: str
    heavy: list[str]
    seconds: float


class Command:
    """Runs command lines of `vhserve`, one after the other, in a process that has imported nothing heavy."""

    def __init__(self, folder: Path) -> None:
        # Nobody resolves `.invalid`, so that the Hub is out of reach on every machine.
        hub = {"HF_HUB_CACHE": str(folder / "hub"), "HF_ENDPOINT": "http://hub.invalid", "HF_HUB_OFFLINE": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **hub, "XDG_CACHE_HOME": str(folder / "cache")},
            cwd=folder,
        )

    def __call__(self, *words: object) -> Said:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()
        return Said(**json.loads(self.process.stdout.readline()))

    def refuses(self, *words: object, saying: list[str]) -> None:
        said = self(*words)
        assert said.code == 2, said
        assert said.out == ""
        assert len(said.err.splitlines()) == 1, said.err
        assert said.err.count("; ") >= 2, "what was wrong; what was expected; what to do"
        assert not said.heavy
        assert [part for part in saying if part not in said.err] == [], said.err
