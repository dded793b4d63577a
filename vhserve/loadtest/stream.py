"""One streaming chat completion on geventhttpclient, timed: sends a body, notes when each piece of the reply comes.

Owns the protocol (HTTP, server-sent events) and the kinds of failure. Knows no schedule. Runs in locust's processes.

Not httpx, like everything else here: locust's users are gevent greenlets, and geventhttpclient is the client made for
them. httpx and the OpenAI client on top of it wait on asyncio or on threads, and take several times the CPU for each
token (docs/loadtest.md has the figures), which would be in the latencies that are measured.
"""

import json
import time
from urllib.parse import urlsplit

import gevent
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketResponse

from profiles.error_text import one_line
from vhserve.evaluation.token_latency import has_text, token_count
from vhserve.loadtest.payloads import Payload
from vhserve.loadtest.records import RequestRecord

_DONE = b"[DONE]"


class _Broken(Exception):
    """The reply is not what the protocol promises."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind)
        self.kind, self.detail = kind, detail


class StreamClient:
    """Chat completions at a base URL (which ends in `/v1`), over at most `connections` connections."""

    def __init__(self, base_url: str, key: str | None, connections: int, timeout: float) -> None:
        self._path = urlsplit(base_url).path.rstrip("/") + "/chat/completions"
        self._timeout = timeout
        # A connection of its own for each request, as from users of their own. A server closes kept ones when they have
        # been idle for some seconds, vLLM's after five; a request that is sent at that moment is lost and must not be
        # sent again unasked, so it would count as the server's failure.
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Connection": "close"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._http = HTTPClient.from_url(
            base_url,
            concurrency=connections,
            connection_timeout=timeout,
            network_timeout=timeout,
            block_size=16_384,
        )

    def ask(self, payload: Payload, seen: RequestRecord, tokens: int | None) -> None:
        """Send a request and fill in its record.

        Parameters
        ----------
        payload
            What to send.
        seen
            `due` is set; the rest is filled in.
        tokens
            Tokens that the reply must have; `None` for any number.
        """
        seen.sent = time.monotonic()
        response = None
        try:
            with gevent.Timeout(self._timeout):
                response = self._http.post(self._path, payload.body, self._headers)
                if response.status_code != 200:
                    raise _Broken(f"http {response.status_code}", response.read(2048).decode(errors="replace"))
                self._read(response, payload, seen)
            if seen.outcome != "aborted":
                _check(seen, tokens)
                seen.outcome = "ok"
        except gevent.Timeout:
            _fail(seen, "timeout", f"no end after {self._timeout:g} s")
        except _Broken as broken:
            _fail(seen, broken.kind, broken.detail)
        except (HTTPConnectionClosed, HTTPParseError, ConnectionResetError, BrokenPipeError) as error:
            _fail(seen, "disconnected", f"{type(error).__name__}: {error}")
        except TimeoutError as error:
            _fail(seen, "timeout", str(error))
        except OSError as error:
            _fail(seen, "connection", f"{type(error).__name__}: {error}")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            _fail(seen, "protocol", f"{type(error).__name__}: {error}")
        finally:
            if response is not None:
                response.release()

    def close(self) -> None:
        """Close what connections there are."""
        self._http.close()

    def _read(self, response: HTTPSocketResponse, payload: Payload, seen: RequestRecord) -> None:
        while line := response.readline(b"\n"):
            if not line.startswith(b"data:"):
                continue
            now = time.monotonic() - seen.due
            data = line[5:].strip()
            if data == _DONE:
                response.read()
                return
            event = json.loads(data)
            if "error" in event:
                raise _Broken("error event", json.dumps(event["error"]))
            if event.get("usage"):
                seen.tokens = int(event["usage"]["completion_tokens"])
                seen.prompt_tokens = int(event["usage"].get("prompt_tokens") or 0)
            if event.get("choices") and has_text(event["choices"][0]["delta"]):
                seen.arrivals.append(round(now, 6))
                if payload.abort_after is not None and len(seen.arrivals) >= payload.abort_after:
                    seen.outcome = "aborted"
                    return
        raise _Broken("disconnected", "the stream ended without [DONE]")


def _check(seen: RequestRecord, tokens: int | None) -> None:
    if not seen.arrivals:
        raise _Broken("empty reply", "no token came")
    seen.tokens = token_count(seen.tokens, len(seen.arrivals))
    if tokens is not None and seen.tokens != tokens:
        raise _Broken("wrong length", f"{seen.tokens} tokens came, {tokens} were asked for")


def _fail(seen: RequestRecord, kind: str, detail: str) -> None:
    seen.outcome, seen.error, seen.detail = "failed", kind, one_line(detail, longest=200)
