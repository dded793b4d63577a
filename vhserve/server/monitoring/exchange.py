"""One request and its response as raw bodies, and the parts of them that can be compared with a reference.

Owns the parsing of OpenAI's chat and text completions, whole and streamed. Sends nothing.
"""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exchange:
    """A request and its response, which had status 200.

    Attributes
    ----------
    path
        Route after the base URL's `/v1`.
    request_body, response_body
        As sent; a streamed response as its server-sent events.
    seconds
        From the request's arrival to the end of the response.
    """

    path: str
    request_body: bytes
    response_body: bytes
    seconds: float

    @property
    def size(self) -> int:
        """Bytes of both bodies."""
        return len(self.request_body) + len(self.response_body)


def comparable_request(exchange: Exchange) -> dict[str, Any] | None:
    """Fields of the request to send to a reference, or None where responses cannot be compared.

    They can where decoding is greedy and one choice is asked for. The reference is not asked to stream.
    """
    try:
        request = json.loads(exchange.request_body)
    except ValueError:
        return None
    if not isinstance(request, dict) or request.get("temperature") != 0 or request.get("n") not in (None, 1):
        return None
    if isinstance(request.get("prompt"), list) or request.get("echo"):
        return None
    # Fields that only concern this server.
    local = ("stream", "stream_options", "priority", "cache_salt", "user", "request_id")
    return {name: value for name, value in request.items() if name not in local}


def reply_text(response_body: bytes) -> str | None:
    """Text of a response's only choice, whole or streamed; None where there is none."""
    if response_body.lstrip().startswith(b"{"):
        return _text(_parsed(response_body), "message")
    events = (line[len(b"data:") :].strip() for line in response_body.splitlines() if line.startswith(b"data:"))
    parts = [_text(_parsed(event), "delta") for event in events if event.startswith(b"{")]
    texts = [part for part in parts if part is not None]
    return "".join(texts) if texts else None


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _text(completion: Any, holder: str) -> str | None:
    try:
        choice = completion["choices"][0]
        text = choice[holder].get("content") if holder in choice else choice["text"]
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
    return text if isinstance(text, str) else None
