"""One stream against servers that misbehave byte by byte: every failure has its kind, and none hangs."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from vhserve.loadtest.payloads import Payload
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.stream import StreamClient

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(part: dict) -> bytes:
    return f"data: {json.dumps(part)}\n\n".encode()


def token(text: str = "x", key: str = "content") -> bytes:
    return event({"choices": [{"index": 0, "delta": {key: text}}]})


def usage(tokens: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": tokens}})


ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})


@contextmanager
def answering(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request and then talks as it is told; yields its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                body = head.split(b"\r\n\r\n", 1)[1]
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(body) < length:
                    body += connection.recv(65536)
                with contextlib.suppress(OSError):
                    talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def ask(url: str, *, tokens: int | None = 3, abort_after: int | None = None, timeout: float = 5.0) -> RequestRecord:
    seen = RequestRecord(0, "image", False, time.monotonic())
    with contextlib.closing(StreamClient(url, None, 2, timeout)) as endpoint:
        endpoint.ask(Payload(b'{"a": 1}', "image", abort_after), seen, tokens)
    return seen


def whole(*events: bytes) -> bytes:
    return HEAD + b"".join(map(chunk, events)) + END


@pytest.mark.parametrize("chopped", [False, True], ids=["at once", "byte by byte"])
def test_tokens_are_timed_however_they_are_cut(chopped: bool) -> None:
    sent = whole(ROLE, token(), token("a\\n"), b": ping\n\n", token(key="reasoning_content"), usage(3), DONE)

    def talk(connection: socket.socket) -> None:
        for part in [sent[at : at + 1] for at in range(len(sent))] if chopped else [sent]:
            connection.sendall(part)

    with answering(talk) as url:
        seen = ask(url)
    assert (seen.outcome, seen.error, seen.tokens, seen.prompt_tokens) == ("ok", None, 3, 11)
    assert len(seen.arrivals) == 3
    assert seen.arrivals == sorted(seen.arrivals)
    assert 0 < seen.ttft < 5


def test_times_are_those_of_the_arrivals() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD + chunk(ROLE))
        for _ in range(3):
            time.sleep(0.1)
            connection.sendall(chunk(token()))
        connection.sendall(chunk(usage(3)) + chunk(DONE) + END)

    with answering(talk) as url:
        seen = ask(url)
    # Sleeps are never shorter than asked for; how much longer depends on the machine.
    assert 0.1 <= seen.ttft < 0.5
    assert min(seen.itl) >= 0.09
    assert seen.tpot == pytest.approx((seen.e2e - seen.ttft) / 2)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", "http 503"),
        (b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"no") + END, "http 400"),
        (b"", "disconnected"),
        (HEAD, "disconnected"),
        (HEAD + chunk(token()), "disconnected"),
        (HEAD + chunk(token())[:-9], "disconnected"),
        (whole(token(), token(), usage(3)), "disconnected"),  # a clean end, but no [DONE]
        (b"HTTP/1.0 200 OK\r\n\r\n" + token() + token(), "disconnected"),  # ends with the connection
        (b"SSH-2.0-OpenSSH_9.2\r\n", "disconnected"),
        (whole(event({"error": {"message": "engine died", "code": 500}}), DONE), "error event"),
        (whole(b"data: {not json}\n\n", DONE), "protocol"),
        (whole(event({"choices": [{"text": "x"}]}), DONE), "protocol"),
        (whole(b'data: "words"\n\n', DONE), "protocol"),
        (whole(ROLE, usage(0), DONE), "empty reply"),
        (whole(token(), usage(2), DONE), "wrong length"),
    ],
)
def test_each_failure_has_its_kind(sent: bytes, kind: str) -> None:
    with answering(lambda connection: connection.sendall(sent)) as url:
        seen = ask(url)
    assert (seen.outcome, seen.error) == ("failed", kind), seen.detail
    assert seen.detail


def test_a_server_that_never_ends_is_a_timeout() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        for _ in range(40):
            connection.sendall(chunk(token()))  # it does go on, but not to an end
            time.sleep(0.05)

    with answering(talk) as url:
        started = time.monotonic()
        seen = ask(url, timeout=0.5)
        assert time.monotonic() - started < 1.5
    assert (seen.outcome, seen.error) == ("failed", "timeout")


def test_nobody_listening_is_a_failed_connection() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        seen = ask(f"http://127.0.0.1:{probe.getsockname()[1]}/v1")
    assert (seen.outcome, seen.error) == ("failed", "connection")
    assert "refused" in seen.detail


def test_an_abort_closes_the_connection() -> None:
    closed = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD + chunk(token()) + chunk(token()))
        connection.settimeout(5)
        if connection.recv(10) == b"":
            closed.set()

    with answering(talk) as url:
        seen = ask(url, abort_after=2)
        assert closed.wait(5)
    assert (seen.outcome, seen.error, len(seen.arrivals)) == ("aborted", None, 2)


def test_any_length_is_fine_when_none_is_asked_for() -> None:
    with answering(lambda connection: connection.sendall(whole(token(), token(), DONE))) as url:
        seen = ask(url, tokens=None)
    assert (seen.outcome, seen.tokens) == ("ok", 2)  # counted here, as the server gave no usage
