"""Media from named domains: what is fetched, from where, and that a redirect leads nowhere. In a process with vLLM."""

import base64
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from engine_host import EngineHost, call
from engine_prompts import image

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


def video_file(path: Path, frames: int, size: tuple[int, int]) -> None:
    """An AVI of single JPEG pictures."""
    import cv2
    import numpy as np

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 8, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 4 * number, dtype=np.uint8))
    writer.release()


def frames_of(path: str, limit: int, options: dict[str, Any]) -> tuple[tuple[int, ...], str | None, int]:
    """Runs in the host: what a request's video becomes or is refused by, and how many times frames were read."""
    import base64
    from unittest.mock import patch

    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY
    from vllm.multimodal.video_decoders.opencv import OpenCVVideoBackendMixin

    from profiles.pictures.resizing import ResizeRule
    from vhserve.server import media
    from vhserve.server.request_pictures import PixelLimits, RequestPictures, current

    media.register()
    connector = MEDIA_CONNECTOR_REGISTRY.load("vhserve", media_io_kwargs={"video": options})
    if path.endswith(".avi"):
        with open(path, "rb") as file:
            url = f"data:video/avi;base64,{base64.b64encode(file.read()).decode()}"
    else:
        url = f"data:video/jpeg;base64,{path}"
    read = OpenCVVideoBackendMixin.read_frames
    token = current.set(RequestPictures(PixelLimits(request=limit), ResizeRule()))
    try:
        with patch.object(OpenCVVideoBackendMixin, "read_frames", side_effect=read) as reads:
            try:
                return connector.fetch_video(url).media[0].shape, None, reads.call_count
            except ValueError as error:
                return (), f"{type(error).__name__}: {error}", reads.call_count
    finally:
        current.reset(token)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"num_frames": 10}, 10),
        ({"num_frames": -1}, 40),
        ({"video_backend": "qwen2_vl"}, 10),  # two a second, of five seconds
        ({"video_backend": "opencv_dynamic", "fps": 4}, 20),
    ],
)
def test_frames_are_counted_before_they_are_decoded(
    options: dict[str, Any], taken: int, tmp_path: Path, engine_host: EngineHost
) -> None:
    """Those that are taken, of which a file may have many more."""
    path = tmp_path / "video.avi"
    video_file(path, 40, (64, 48))
    shape, said, reads = engine_host.do(call(frames_of, str(path), taken * 64 * 48, options)).probed
    assert (shape, said, reads) == ((taken, 48, 64, 3), None, 1)
    shape, said, reads = engine_host.do(call(frames_of, str(path), taken * 64 * 48 - 1, options)).probed
    assert reads == 0
    assert said.startswith(f"ValueError: video 1: with {taken} frames of 64 x 48 the request's pictures have ")
    assert "(--max-request-pixels)" in said


def test_frames_that_are_sent_as_pictures_are_counted_one_by_one(engine_host: EngineHost) -> None:
    pictures = []
    for seed in range(3):
        file = io.BytesIO()
        image(seed, (64, 48)).save(file, "JPEG")
        pictures.append(base64.b64encode(file.getvalue()).decode())
    found = [
        engine_host.do(call(frames_of, ",".join(pictures), 3 * 64 * 48 - less, {"num_frames": 8})).probed
        for less in (0, 1)
    ]
    assert found[0] == ((3, 48, 64, 3), None, 0)
    assert "with 1 frame of 64 x 48 the request's pictures have 9216 pixels" in found[1][1]


def test_a_redirect_is_not_followed(engine_host: EngineHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inner:
        inner.setblocking(False)
        with pictures(f"http://localhost:{inner.getsockname()[1]}/x.png") as port:
            outcome = engine_host.do(call(fetch, "vhserve", ["127.0.0.1"], f"http://127.0.0.1:{port}/away"))
        assert outcome.failure is not None
        with pytest.raises(BlockingIOError):
            inner.accept()
