"""Requests that are wrong, broken or hostile: each gets its status and a body of the OpenAI protocol that tells nothing
of the server, and no connection is made to where it points.
"""

import json
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_prompts import IMAGE_TOKEN, image
from live_server import KEY, Reply, Server, data_url, encoded, message, picture_message
from oracle import TinyModel
from PIL import Image

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

SMALL = image(1, (40, 40))


def png(side: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BROKEN: dict[str, str] = {
    "broken base64": "data:image/png;base64,@@@ this is not base64 @@@",
    "no base64": "data:image/png,abc",
    "no comma": "data:image/png;base64",
    "not an image": data_url(b"hello world, not an image"),
    "half an image": data_url(encoded(SMALL)[:60]),
    "declared 50,000 x 50,000": data_url(png(50_000)),
    "declared 8,000 x 8,000": data_url(png(8_000)),
    "file": "file:///etc/passwd",
    "metadata service": "http://169.254.169.254/latest/meta-data/",
    "ftp": "ftp://169.254.169.254/x.png",
    "nothing": "",
}

ODD: dict[str, str] = {
    "1 x 1": data_url(encoded(image(1, (1, 1)))),
    "1 x 4000": data_url(encoded(image(1, (1, 4000)))),
    "RGBA": data_url(encoded(Image.new("RGBA", (40, 40), (1, 2, 3, 100)))),
    "CMYK": data_url(encoded(SMALL.convert("CMYK"), "JPEG"), "image/jpeg"),
    "16 bit": data_url(encoded(Image.new("I;16", (40, 40), 3000))),
    "animated": data_url(encoded(SMALL, "GIF", save_all=True, append_images=[image(2, (40, 40))]), "image/gif"),
}


@pytest.fixture
def ask_for(server: Server, models: dict[str, TinyModel]) -> Callable[..., Reply]:
    def send(*urls: str, **options: Any) -> Reply:
        said = {"messages": [message(*urls)], "model": str(models["gqa"].path), "max_tokens": 2, "temperature": 0}
        return server.post(said | options)

    return send


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listens on loopback; the test sees whether anyone came."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def assert_nobody_came(listening: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listening.accept()


def assert_refused(reply: Reply, status: int) -> str:
    """The body is an OpenAI error that holds no path, no address in memory and no traceback; returns its message."""
    assert reply.status == status, reply.text
    error = json.loads(reply.text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert error["message"]
    assert not re.search(r"0x[0-9a-f]{6,}|Traceback|\.py\b|site-packages|/(tmp|root|home|usr|work)/", reply.text)
    assert str(Path.cwd()) not in reply.text
    said: str = error["message"]
    return said


@pytest.mark.parametrize("name", BROKEN)
def test_a_picture_that_is_none_is_the_client_s_mistake(name: str, ask_for: Callable[..., Reply]) -> None:
    assert_refused(ask_for(BROKEN[name]), 400)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_is_answered(name: str, ask_for: Callable[..., Reply]) -> None:
    reply = ask_for(ODD[name])
    assert reply.status == 200, reply.text
    assert json.loads(reply.text)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/x.png",
        "HTTP://localhost:{port}/x.png",
        " http://127.0.0.1:{port}/x.png",
        "//127.0.0.1:{port}/x.png",
        "http://example.com\\@127.0.0.1:{port}/x.png",
        "http://example.com#@127.0.0.1:{port}/x.png",
        "http://0x7f000001:{port}/x.png",
        "http://[::ffff:127.0.0.1]:{port}/x.png",
    ],
)
def test_no_connection_is_made_for_a_picture(url: str, ask_for: Callable[..., Reply], listener: socket.socket) -> None:
    said = assert_refused(ask_for(url.format(port=listener.getsockname()[1])), 400)
    assert "remote media" in said
    assert_nobody_came(listener)


def test_too_many_pictures(ask_for: Callable[..., Reply]) -> None:
    assert "8" in assert_refused(ask_for(*[data_url(encoded(SMALL))] * 9), 400)


def test_a_prompt_that_is_too_long(ask_for: Callable[..., Reply]) -> None:
    assert "512" in assert_refused(ask_for(messages=[{"role": "user", "content": "red " * 600}]), 400)


PICTURE = picture_message(1)
PLACEHOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "system message": ("chat/completions", {"messages": [{"role": "system", "content": "<image>"}, PICTURE]}),
    "earlier turn": (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "<image>"}]}]},
    ),
    "stream": ("chat/completions", {"messages": [message(text="a <image>")], "stream": True}),
    "tools": (
        "chat/completions",
        {"messages": [PICTURE], "chat_template_kwargs": {"bos_token": "<image>"}},
    ),
    "prompt": ("completions", {"prompt": "USER: <image> how many ? ASSISTANT:"}),
    "one prompt of two": ("completions", {"prompt": ["how many ?", "<image>"]}),
    "token ids": ("completions", {"prompt": [1, 5, IMAGE_TOKEN, 5]}),
    "responses": ("responses", {"input": "a <image>"}),
    "anthropic": ("messages", {"messages": [{"role": "user", "content": "a <image>"}], "max_tokens": 2}),
}


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_a_text_that_stands_for_a_picture(name: str, server: Server, models: dict[str, TinyModel]) -> None:
    route, body = PLACEHOLDERS[name]
    asked = {"model": str(models["gqa"].path), "max_tokens": 2} | body
    reply = server.post(asked, f"/v1/{route}")
    assert reply.status == 400, reply.text
    said = reply.text if route == "messages" else assert_refused(reply, 400)
    assert "<image>" in said
    assert "\n" not in said


@pytest.mark.parametrize("n", [17, 10_000])
def test_too_many_answers(n: int, ask_for: Callable[..., Reply]) -> None:
    """vLLM itself says 503 to more than its queue holds, as if they would fit later."""
    assert "n must be at most 16" in assert_refused(ask_for(n=n), 400)


def test_a_body_of_200_mb(server: Server) -> None:
    said = assert_refused(server.post(b'{"x": "' + bytes(200_000_000) + b'"}'), 413)
    assert str(32 << 20) in said
    assert server.is_ready()


@pytest.mark.parametrize("key", ["another-key", None, ""])
def test_a_wrong_key(key: str | None, server: Server) -> None:
    assert_refused(server.post({}, key=key), 401)
    assert KEY not in server.post({}, key=key).text


@pytest.mark.parametrize("route", ["/invocations", "/tokenize", "/scale_elastic_ep"])
def test_routes_that_vllm_leaves_open_need_the_key_as_well(route: str, server: Server) -> None:
    assert_refused(server.post({}, route, key=None), 401)
    assert server.get("/health") == ""
    assert server.get("/metrics")


def test_an_unknown_model(ask_for: Callable[..., Reply]) -> None:
    assert_refused(ask_for(model="another"), 404)


def test_an_unknown_route(server: Server) -> None:
    assert_refused(server.post({}, "/v1/nothing"), 404)


@pytest.mark.parametrize(
    "body",
    [
        b"{broken",
        b"null",
        b"\xff\xfe",
        b"[]",
        b"{}",
        {"model": "m", "messages": "hello"},
        {"model": "m", "messages": [], "temperature": "hot"},
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1},
    ],
    ids=repr,
)
def test_a_body_that_is_no_request(body: Any, server: Server, models: dict[str, TinyModel]) -> None:
    if isinstance(body, dict) and body.get("max_tokens"):
        body = body | {"model": str(models["gqa"].path)}
    assert_refused(server.post(body), 400)


def test_refusals_are_counted_and_the_server_goes_on(server: Server, ask_for: Callable[..., Reply]) -> None:
    refused = server.value("vhserve_requests_total", outcome="refused")
    errors = server.value("vhserve_requests_total", outcome="error")
    ask_for(BROKEN["not an image"])
    ask_for(model="another")
    server.post({}, key="another-key")
    assert server.value("vhserve_requests_total", outcome="refused") == refused + 3
    assert server.value("vhserve_requests_total", outcome="error") == errors
    assert ask_for(messages=[picture_message(1)]).status == 200
