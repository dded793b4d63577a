"""The guard in front of vLLM's routes: limits of bodies, and the looks of refusals; and the stricter settings."""

import asyncio
import json
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
from engine_host import EngineHost, call

from vhserve.server import hardening
from vhserve.server.guard import Guard
from vhserve.server.settings import ServerSettings, attach


def application(settings: ServerSettings, keys: list[str] | None = None) -> SimpleNamespace:
    """Of an API server, as far as the guard looks at it."""
    arguments = Namespace(api_key=keys)
    attach(arguments, settings)
    return SimpleNamespace(state=SimpleNamespace(args=arguments))


APP = application(ServerSettings(max_request_bytes=100, max_sequences=4))


def through(
    pieces: list[bytes],
    *,
    status: int = 200,
    answer: bytes = b"{}",
    kind: bytes = b"application/json",
    declared: int | None = None,
) -> tuple[list[Any], bytes | None]:
    """What a client gets who sends a body in pieces, and what the application read."""
    left = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]
    sent: list[Any] = []
    read: bytes | None = None

    async def receive() -> Any:
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        read, more = b"", True
        while more:
            message = await receive()
            read += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": answer[:3], "more_body": True})
        await send({"type": "http.response.body", "body": answer[3:]})

    size = sum(map(len, pieces)) if declared is None else declared
    headers = [(b"transfer-encoding", b"chunked")] if size < 0 else [(b"content-length", str(size).encode())]
    scope = {"type": "http", "method": "POST", "app": APP, "headers": headers}
    asyncio.run(Guard(app)(scope, receive, send))
    return sent, read


def status_and_error(sent: list[Any]) -> tuple[int, Any]:
    body = b"".join(message.get("body", b"") for message in sent[1:])
    headers = dict(sent[0]["headers"])
    assert int(headers[b"content-length"]) == len(body)
    return sent[0]["status"], json.loads(body)["error"]


@pytest.mark.parametrize("pieces", [[b"x" * 100], [b"x" * 60, b"x" * 40], [b""]])
def test_a_body_within_the_limit_arrives_whole(pieces: list[bytes]) -> None:
    sent, read = through(pieces)
    assert read == b"".join(pieces) or not pieces[0]
    assert sent[0]["status"] == 200


@pytest.mark.parametrize(
    ("pieces", "declared"),
    [([b"x" * 101], None), ([b"x" * 60, b"x" * 41], -1), ([b"x"], 10**12), ([b"x" * 99] * 3, 50)],
)
def test_a_longer_one_never_arrives_whatever_it_declares(pieces: list[bytes], declared: int | None) -> None:
    sent, read = through(pieces, declared=declared)
    status, error = status_and_error(sent)
    assert status == error["code"] == 413
    assert "100 bytes" in error["message"]
    assert read is None
    assert (b"connection", b"close") in sent[0]["headers"]
    assert sent[-1]["more_body"] is False


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [1, 2]}', "Not Found"),
        (b"[]", "Not Found"),
    ],
)
def test_every_json_refusal_speaks_the_protocol(answer: bytes, message: str) -> None:
    status, error = status_and_error(through([b"{}"], status=404, answer=answer)[0])
    assert status == 404
    assert error == {"message": message, "type": "Not Found", "param": None, "code": 404}


def test_what_speaks_it_already_and_what_is_no_refusal_is_left_alone() -> None:
    for status, answer, kind in (
        (400, b'{"error": {"message": "m", "type": "t"}}', b"application/json"),
        (200, b'{"detail": "fine"}', b"application/json"),
        (404, b"no such page", b"text/plain"),
    ):
        sent, _ = through([b"{}"], status=status, answer=answer, kind=kind)
        assert sent[0]["status"] == status
        assert b"".join(message.get("body", b"") for message in sent[1:]) == answer


def test_a_full_server_says_when_to_ask_again() -> None:
    sent, _ = through([b'{"n": 4}'], status=503, answer=b'{"error": {"message": "busy", "code": 503}}')
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"1"


def test_more_sequences_than_are_allowed_are_no_matter_of_room() -> None:
    status, error = status_and_error(
        through([b'{"n": 5}'], status=503, answer=b'{"error": {"message": "busy", "code": 503}}')[0]
    )
    assert (status, error["code"], error["param"]) == (400, 400, "n")
    assert "Retry" not in error["message"]


@pytest.mark.parametrize(
    ("method", "given", "passes"),
    [
        ("POST", None, False),
        ("POST", b"Bearer second", True),
        ("POST", b"bearer first", True),
        ("POST", b"Bearer third", False),
        ("POST", b"first", False),
        ("POST", b"Basic first", False),
        ("POST", b"Bearer ", False),
        ("DELETE", None, False),
        ("GET", None, True),
        ("OPTIONS", None, True),
    ],
)
def test_whatever_changes_or_costs_something_needs_the_key(method: str, given: bytes | None, passes: bool) -> None:
    reached: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    app_with_keys = application(ServerSettings(max_request_bytes=1, max_sequences=1), ["first", "second"])
    headers = [] if given is None else [(b"authorization", given)]
    scope = {
        "type": "http",
        "method": method,
        "path": "/invocations",
        "app": app_with_keys,
        "headers": headers,
    }
    asyncio.run(Guard(app)(scope, None, send))
    assert bool(reached) == passes
    if not passes:
        assert status_and_error(sent)[0] == 401


# --- settings ---


@pytest.mark.parametrize(
    ("host", "key", "uds", "warns"),
    [
        (None, None, None, True),
        ("0.0.0.0", None, None, True),
        ("::", [], None, True),
        ("10.1.2.3", None, None, True),
        ("example.com", None, None, True),
        ("0.0.0.0", ["k"], None, False),
        ("127.0.0.1", None, None, False),
        ("127.8.8.8", None, None, False),
        ("::1", None, None, False),
        ("localhost", None, None, False),
        (None, None, "/run/socket", False),
    ],
)
def test_an_open_port_is_warned_of(host: str | None, key: list[str] | None, uds: str | None, warns: bool) -> None:
    warning = hardening.exposure_warning(Namespace(host=host, api_key=key, uds=uds, port=8000))
    assert (warning is not None) == warns
    if warning:
        assert "8000" in warning
        assert "VLLM_API_KEY" in warning


def test_the_environment_s_key_counts_and_its_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "k")
    assert hardening.exposure_warning(Namespace(host=None, api_key=None, uds=None, port=8000)) is None
    names = ("VLLM_MAX_IMAGE_PIXELS", "VLLM_MAX_N_SEQUENCES", "VLLM_MEDIA_URL_ALLOW_REDIRECTS", "VLLM_MEDIA_CONNECTOR")
    for name in names:
        monkeypatch.setenv(name, "theirs")
    hardening.set_environment(max_image_pixels=1, max_sequences=1, any_media_domain=False)
    assert [hardening.os.environ[name] for name in names] == ["theirs"] * 4


def parsed(*flags: str) -> dict[str, Any]:
    """Runs in the host: what our parser makes of flags."""
    from vhserve.server import serving

    arguments = serving.parse_flags("m", flags)
    return {name: getattr(arguments, name) for name in (*hardening.FLAG_DEFAULTS, "max_num_queued_reqs")}


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], {"limit_mm_per_prompt": {"image": 8, "video": 1}, "shutdown_timeout": 30, "max_num_queued_reqs": 1024}),
        (["--limit-mm-per-prompt", '{"image": 2}'], {"limit_mm_per_prompt": {"image": 2}}),
        (["--limit-mm-per-prompt.image", "3"], {"limit_mm_per_prompt": {"image": 3}}),
        (["--shutdown-timeout", "0"], {"shutdown_timeout": 0}),
        (["--max-num-queued-reqs", "7"], {"max_num_queued_reqs": 7}),
        (["--max-num-seqs", "8", "--data-parallel-size", "2"], {"max_num_queued_reqs": 64}),
    ],
)
def test_stricter_defaults_give_way_to_the_user_s(
    flags: list[str], expected: dict[str, Any], engine_host: EngineHost
) -> None:
    outcome = engine_host.do(call(parsed, *flags))
    assert outcome.failure is None, outcome.failure
    assert outcome.probed.items() >= expected.items()
