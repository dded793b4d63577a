"""One request and its answer, as they went over the wire, and what of them can be compared.

Owns the reading of OpenAI's chat and text completions, whole and streamed. Sends nothing.
"""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exchange:
    """A request that was answered with status 200.

    Attributes
    ----------
    path
        Route after the base URL's `/v1`.
    asked, answered
        Bodies of request and response.
    seconds
        From the request's arrival to the end of the answer.
    """

    path: str
    asked: bytes
    answered: bytes
    seconds: float

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.asked) + len(self.answered)


def repeatable(exchange: Exchange) -> dict[str, Any] | None:
    """The request to send to a reference, or None where answers cannot be compared.

    They can where decoding was greedy and one answer was asked for. It is asked for whole, not as a stream.
    """
    try:
        request = json.loads(exchange.asked)
    except ValueError:
        return None
    if not isinstance(request, dict) or request.get("temperature") != 0 or request.get("n") not in (None, 1):
        return None
    if isinstance(request.get("prompt"), list) or request.get("echo"):
        return None
    # What belongs to this server alone.
    ours = ("stream", "stream_options", "priority", "cache_salt", "user", "request_id")
    return {name: value for name, value in request.items() if name not in ours}


def text_of(answered: bytes) -> str | None:
    """The text of an answer's only choice, whole or streamed; None where there is none."""
    if answered.lstrip().startswith(b"{"):
        return _text(_parsed(answered), "message")
    events = (line[len(b"data:") :].strip() for line in answered.splitlines() if line.startswith(b"data:"))
    parts = [_text(_parsed(event), "delta") for event in events if event.startswith(b"{")]
    said = [part for part in parts if part is not None]
    return "".join(said) if said else None


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _text(said: Any, holder: str) -> str | None:
    try:
        choice = said["choices"][0]
        text = choice[holder].get("content") if holder in choice else choice["text"]
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
    return text if isinstance(text, str) else None
