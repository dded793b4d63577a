"""Whether the client could keep up: its CPU, its event loop, and how late it sent.

Owns the limits beyond which figures are the client's and not the server's.
"""

from collections.abc import Sequence

import numpy as np

from vhserve.evaluation.token_latency import quantiles
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.results import ClientLoad
from vhserve.loadtest.turn import Turn

BUSY = 0.8
"""Share of a core beyond which a process, which has one thread, can be late with anything."""

LATE = 0.02
"""Seconds; a 99th percentile of lateness above it is within reach of a time per output token."""


def client_load(turns: Sequence[Turn]) -> ClientLoad:
    """Summarise how busy the sending processes were while they measured."""
    shares, peaks, late = [], [], []
    for turn in turns:
        until = max((one.end for one in turn.observed), default=0.0)
        for samples in turn.samples:
            measured = [one for one in samples if turn.since <= one.at <= until + 1]
            if measured:
                shares.append(float(np.mean([one.cpu for one in measured])))
                peaks.append(max(one.cpu for one in measured))
                late += [one.late for one in measured]
    mean, late_p99 = max(shares, default=0.0), quantiles(late, (0.99,))[0] if late else 0.0
    return ClientLoad(
        processes=max((len(turn.samples) for turn in turns), default=0),
        cpu_mean=mean,
        cpu_max=max(peaks, default=0.0),
        late_p99=late_p99,
        saturated=_saturated(mean, late_p99, [one for turn in turns for one in turn.observed]),
    )


def _saturated(cpu: float, late: float, seen: Sequence[RequestRecord]) -> str:
    if cpu > BUSY:
        return f"a client process used {100 * cpu:.0f}% of a core; give more --clients"
    if late > LATE:
        return (
            f"the client's event loop woke {1000 * late:.0f} ms late at its 99th percentile; its machine is too busy, "
            "or the pictures are too large: run it on another machine, or give more --clients"
        )
    lags = [one.lag for one in seen if one.sent is not None]
    if lags and (lag := quantiles(lags, (0.99,))[0]) > LATE:
        return (
            f"the client sent {1000 * lag:.0f} ms late at the 99th percentile, which is in its latencies; its machine "
            "is too busy: run it on another machine"
        )
    if any(one.error == "not sent" for one in seen):
        return "requests were due while as many as --max-in-flight were under way; they count as failed"
    return ""
