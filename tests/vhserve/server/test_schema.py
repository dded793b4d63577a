"""Requests drawn from the server's own OpenAPI description, valid and not: none of them is answered with 500."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from live_server import KEY, Server

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed"),
]


def test_no_request_is_a_server_s_error(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--seed", "7"]
    limits = ["--max-examples", "25", "--workers", "2", "--request-timeout", "60", "--max-time", "60"]
    # Says truthfully, with 501, that it is not for such a model.
    routes = ["--exclude-path", "/v1/systemone"]
    checks = ["--checks", "not_a_server_error", "--phases", "examples,fuzzing", "--mode", "all", "--no-color"]
    key = ["--header", f"Authorization: Bearer {KEY}"]
    done = subprocess.run(
        [*command, *limits, *routes, *checks, *key], capture_output=True, text=True, cwd=tmp_path, timeout=400
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.is_ready()
