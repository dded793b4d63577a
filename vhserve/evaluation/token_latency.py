"""Latencies of streamed replies, their quantiles and their throughput: defined here once, for all that measures them.

Knows times that a client noted; no client, no server and no file.

Let a request be due at time 0 (in a closed loop: when it is sent), let the pieces of its reply arrive at t_1 ≤ … ≤ t_k,
and let the server count n output tokens. A piece is a chunk of the stream with text in its delta: one token, or several
that the server sent together.

    TTFT = t_1                      time to first token
    TPOT = (t_k − t_1) / (n − 1)    time per output token, of a reply of at least two
    ITL  = t_(i+1) − t_i            inter-token latency, one for each pair of neighbouring pieces
    E2E  = t_k                      end to end

These are the formulas of `vllm bench serve` (vllm/benchmarks/serve.py and lib/endpoint_request_func.py) with two
differences: it counts from when a request was sent, which hides the time that a late client adds; and it takes any
chunk for a token, so also the empty one in front that carries the role. vLLM sends that together with the first token,
other servers may send it before the prompt is computed.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

_TEXT = ("content", "reasoning", "reasoning_content")


class TokenTimes:
    """Base of a record of one request; the formulas are above.

    Attributes
    ----------
    due
        When it should have been sent, in seconds of `time.monotonic`.
    arrivals
        When each piece of the reply came, in seconds after `due`, in order.
    tokens
        Output tokens as the server counts them.
    """

    due: float
    arrivals: list[float]
    tokens: int

    @property
    def ttft(self) -> float:
        """Time to first token in seconds; of a reply with a piece at least."""
        return self.arrivals[0]

    @property
    def tpot(self) -> float | None:
        """Time per output token in seconds; `None` for a reply of one token."""
        return (self.e2e - self.ttft) / (self.tokens - 1) if self.tokens > 1 else None

    @property
    def itl(self) -> list[float]:
        """Inter-token latencies in seconds, one less than pieces."""
        return [late - early for early, late in pairwise(self.arrivals)]

    @property
    def e2e(self) -> float:
        """End-to-end latency in seconds; of a reply with a piece at least."""
        return self.arrivals[-1]

    @property
    def end(self) -> float:
        """When its last piece came, in seconds of `time.monotonic`; `due` where none came."""
        return self.due + self.arrivals[-1] if self.arrivals else self.due


def has_text(delta: Mapping[str, Any]) -> bool:
    """Whether a chunk's delta holds a token: text of the answer, or of the reasoning before it."""
    return any(delta.get(name) for name in _TEXT)


def token_count(usage: int, pieces: int) -> int:
    """Output tokens of a reply: as the server counts them, or, where it sends no usage (0), the number of pieces."""
    return usage or pieces


def elapsed(requests: Sequence[TokenTimes]) -> float:
    """Seconds from when the first request was due to the last piece of any reply; 0 without requests."""
    return max(one.end for one in requests) - min(one.due for one in requests) if requests else 0.0


def per_second(count: float, seconds: float) -> float:
    """Throughput: a count over `elapsed` seconds; 0 where there are none."""
    return count / seconds if seconds else 0.0


def quantiles(seconds: Iterable[float], shares: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
    """Exact quantiles, linear between neighbours (type 7 of Hyndman and Fan 1996, numpy's default).

    Parameters
    ----------
    seconds
        One value at least, in any order.
    shares
        Of the values that are at most the quantile, 0 to 1: 0.5 for the median.
    """
    return [float(value) for value in np.quantile(np.fromiter(seconds, dtype=float), shares)]
