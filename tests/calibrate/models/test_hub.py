"""What the Hub's refusals become, by a server that answers as the Hub does."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CODE = """
import sys
from calibrate.models import hub, registry
from profiles.errors import UserError
name, revision = "owner/model", sys.argv[1] or None
try: hub.config_path(name, revision) if revision else registry.find(name)
except UserError as error: print(f"{type(error).__name__}: {error}")
"""


@contextmanager
def refusing_hub(status: int, code: str) -> Iterator[str]:
    """A Hub that refuses every file, with the header by which its client tells why."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "revision", "error", "words"),
    [
        (404, "EntryNotFound", "", "UnsupportedModel", "has no config.json"),
        (404, "RepoNotFound", "", "UnknownModel", "'owner/model' is unknown"),
        (403, "GatedRepo", "", "UnknownModel", "gated"),
        (400, "", "", "ModelOffline", "the Hub cannot be reached"),
        (404, "RepoNotFound", "v2", "NotOnHub", "owner/model is not on the Hub"),
        (404, "RevisionNotFound", "v2", "ModelOffline", "revision v2 of owner/model"),
    ],
)
def test_each_refusal_is_its_own_error(
    status: int, code: str, revision: str, error: str, words: str, tmp_path: Path
) -> None:
    with refusing_hub(status, code) as endpoint:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", CODE, revision], env=environment, capture_output=True, text=True, timeout=120
        )
    assert done.stdout.startswith(f"{error}: "), done.stderr
    assert words in done.stdout
