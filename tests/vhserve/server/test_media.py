"""Media from named domains: what is fetched, from where, and that a redirect leads nowhere. In a process with vLLM."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from engine_host import EngineHost, call, image

pytestmark = pytest.mark.vllm


@contextmanager
def pictures(redirect: str) -> Iterator[int]:
    """Serves `/picture.png`, and `/away` that redirects."""
    file = io.BytesIO()
    image(1, (8, 6)).save(file, "PNG")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            away = self.path == "/away"
            self.send_response(302 if away else 200)
            if away:
                self.send_header("Location", redirect)
            self.send_header("Content-Length", "0" if away else str(len(file.getvalue())))
            self.end_headers()
            if not away:
                self.wfile.write(file.getvalue())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(name: str, domains: list[str], url: str) -> tuple[int, int]:
    """Runs in the host: size of a picture, fetched as a server of `vhserve serve` does."""
    from unittest.mock import patch

    from vllm import envs
    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

    from vhserve.server import media

    media.register()
    connector = MEDIA_CONNECTOR_REGISTRY.load(name, allowed_media_domains=domains)
    # As `hardening` sets it in the environment, which vLLM has read already here.
    with patch.object(envs, "VLLM_MEDIA_URL_ALLOW_REDIRECTS", False, create=True):
        size: tuple[int, int] = connector.fetch_image(url).media.size
    return size


@pytest.mark.parametrize(
    ("name", "domains", "fetched"),
    [
        ("vhserve", [], False),
        ("vhserve", ["127.0.0.1"], True),
        ("vhserve", ["example.com"], False),
        ("vhserve-any-domain", [], True),
        ("vhserve-any-domain", ["example.com"], False),
    ],
)
def test_only_named_domains(name: str, domains: list[str], fetched: bool, engine_host: EngineHost) -> None:
    with pictures("") as port:
        outcome = engine_host.do(call(fetch, name, domains, f"http://127.0.0.1:{port}/picture.png"))
    assert outcome.probed == ((8, 6) if fetched else None), outcome.failure
    if not fetched:
        assert outcome.failure is not None
        assert outcome.failure[0] == "ValueError"


def test_a_redirect_is_not_followed(engine_host: EngineHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inner:
        inner.setblocking(False)
        with pictures(f"http://localhost:{inner.getsockname()[1]}/x.png") as port:
            outcome = engine_host.do(call(fetch, "vhserve", ["127.0.0.1"], f"http://127.0.0.1:{port}/away"))
        assert outcome.failure is not None
        with pytest.raises(BlockingIOError):
            inner.accept()
