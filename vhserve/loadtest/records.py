"""The record of one request, as a line of JSON: written by the processes that send, read by the one that counts.

Owns the line's form. Times are seconds of `time.monotonic`, which all processes of a machine share.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vhserve.evaluation.token_latency import TokenTimes

RequestOutcome = Literal["ok", "aborted", "failed"]


@dataclass
class RequestRecord(TokenTimes):
    """One request; its latencies are those of `TokenTimes`.

    Attributes
    ----------
    number, kind, warm_up
        Its place among the process's requests, what it carried, and whether it is in no figure.
    due, sent
        When it should have been sent and when it was; latencies count from `due`. `sent` is None if it never was.
    arrivals
        When each piece of the reply came, in seconds after `due`; a piece is one token, or several sent together.
    tokens, prompt_tokens
        As the server counts them.
    outcome, error, detail
        `aborted`: the client dropped it on purpose. A failure has a kind, such as `http 503`, and a
        detail: the start of its message.
    """

    number: int
    kind: str
    warm_up: bool
    due: float
    sent: float | None = None
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    outcome: RequestOutcome = "failed"
    error: str | None = None
    detail: str | None = None

    @property
    def lag(self) -> float:
        """Seconds that the client sent it too late."""
        return 0.0 if self.sent is None else self.sent - self.due

    def line(self) -> str:
        """This as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True)
class ClientSample:
    """How busy a sending process was at a moment: share of one core, and how late its event loop woke, in seconds."""

    at: float
    cpu: float
    late: float
    in_flight: int

    def line(self) -> str:
        """This as a line of JSON."""
        return json.dumps({"client": asdict(self)}) + "\n"


class RecordReader:
    """Reads a file of records while it is being written: each call returns what is new, in whole lines."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def read(self) -> tuple[list[RequestRecord], list[ClientSample]]:
        """New requests and new samples of the client since the last call."""
        if not self._path.exists():
            return [], []
        with self._path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        observations: list[RequestRecord] = []
        samples: list[ClientSample] = []
        for line in whole.splitlines():
            content: dict[str, Any] = json.loads(line)
            if "client" in content:
                samples.append(ClientSample(**content["client"]))
            else:
                observations.append(RequestRecord(**content))
        return observations, samples
