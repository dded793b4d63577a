"""A refusal as the OpenAI API words it: one JSON object, with its status and headers, sent over ASGI.

Owns the form, and that a client gets it which is still sending its body. Does not know what is refused.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

RETRY_AFTER: Final = b"1"
"""Seconds after which a client may retry where a server is full or ends: queues of short replies drain quickly, and
another server may take the place of one that ends.
"""

_LINGER_SECONDS: Final = 5.0
"""Seconds to keep reading after a refusal: a client that is still sending would get a connection reset instead of the
response.
"""

Headers = Sequence[tuple[bytes, bytes]]


def error_body(status: HTTPStatus, message: str, parameter: str | None = None) -> bytes:
    """The JSON object; `parameter` is the request's field that it is about."""
    error = {"message": message, "type": status.phrase, "param": parameter, "code": status.value}
    return json.dumps({"error": error}).encode()


def headers_of(body: bytes) -> list[tuple[bytes, bytes]]:
    """Headers that describe a JSON body."""
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


async def send_error(
    send: Any, status: HTTPStatus, message: str, *, parameter: str | None = None, headers: Headers = ()
) -> None:
    """Send a whole response, with further headers, to a request whose body was read or does not matter."""
    body = error_body(status, message, parameter)
    await send({"type": "http.response.start", "status": status.value, "headers": [*headers_of(body), *headers]})
    await send({"type": "http.response.body", "body": body})


async def send_error_early(send: Any, receive: Any, status: HTTPStatus, message: str, headers: Headers = ()) -> None:
    """Send a response before the request's body was read, read what still comes, and let the connection end."""
    body = error_body(status, message)
    all_headers = [*headers_of(body), (b"connection", b"close"), *headers]
    await send({"type": "http.response.start", "status": status.value, "headers": all_headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    deadline = time.monotonic() + _LINGER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            message_in = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            break
        if message_in["type"] == "http.disconnect" or not message_in.get("more_body", False):
            break
    await send({"type": "http.response.body", "body": b"", "more_body": False})
