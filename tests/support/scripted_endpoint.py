"""A scripted chat endpoint on loopback, for what a real server won't do on demand: fail, be slow, answer nonsense.

Implements just enough of the OpenAI protocol; each test brings the function that answers.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Reply = str | int
"""Text of the reply, or the status of a failure."""


@dataclass
class Endpoint:
    """A running endpoint, and what it saw."""

    port: int
    seen: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.contextmanager
def endpoint(
    answer: Callable[[dict[str, Any]], Reply] = lambda request: "1",
    *,
    models: tuple[str, ...] = ("m",),
    adapter: str | None = None,
    metrics: str = "",
    key: str | None = None,
    token_seconds: float = 0.0,
    text_field: str = "content",
    usage: bool = True,
) -> Iterator[Endpoint]:
    """Serve `/v1/models`, `/v1/chat/completions` (streaming too), `/metrics` and `/health` until the block ends.

    Streams send as many one-letter tokens as asked for in the delta's `text_field`, `token_seconds` before each, after
    an empty chunk with the role; at the end their usage, unless they have none. `adapter` is one of the first model.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if key is not None and self.path == "/v1/models" and self.headers["Authorization"] != f"Bearer {key}":
                return self.send(401, {"error": {"message": "no"}})
            if self.path == "/v1/models":
                entries = [{"id": name, "object": "model", "created": 0, "owned_by": "t"} for name in models]
                if adapter is not None:
                    entries.append({**entries[0], "id": adapter, "parent": models[0]})
                return self.send(200, {"object": "list", "data": entries})
            return self.send(200, metrics if urlsplit(self.path).path == "/metrics" else "")  # a proxy gets whole URLs

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                here.seen.append(request)
                here.in_flight += 1
                here.most_in_flight = max(here.most_in_flight, here.in_flight)
            try:
                reply = answer(request)
                if isinstance(reply, int):
                    self.send(reply, {"error": {"message": f"scripted {reply}"}})
                elif request.get("stream"):
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that gave up
                        self.stream(request["max_tokens"])
                else:
                    self.send(200, completion(reply))
            finally:
                with lock:
                    here.in_flight -= 1

        def send(self, status: int, body: dict[str, Any] | str) -> None:
            raw = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that gave up
                self.wfile.write(raw)

        def stream(self, tokens: int) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for delta in [{"role": "assistant", "content": ""}, *[{text_field: "x"}] * tokens]:
                time.sleep(0 if "role" in delta else token_seconds)
                self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            if usage:
                counts = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
                self.event({"choices": [], "usage": counts})
            self.wfile.write(b"data: [DONE]\n\n")

        def event(self, part: dict[str, Any]) -> None:
            whole = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", **part}
            self.wfile.write(f"data: {json.dumps(whole)}\n\n".encode())
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Endpoint(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(text: str) -> dict[str, Any]:
    """A chat completion with this reply, each word a token, and one that ends it."""
    tokens = len(text.split()) + 1
    return {
        "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1},
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    }


def question_of(request: dict[str, Any]) -> str:
    """The text of a request's only message."""
    content = request["messages"][0]["content"]
    return next(part["text"] for part in content if part["type"] == "text")
