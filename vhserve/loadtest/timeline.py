"""A turn second by second: requests that ended, tokens that came, requests under way, and the server's metrics.

Owns the buckets. Knows no figures of whole runs.
"""

import math
from collections import defaultdict

from vhserve.loadtest.results import TimelineSecond
from vhserve.loadtest.turn import Turn


def timeline(turn: Turn, number: int) -> list[TimelineSecond]:
    """Put a turn's measured requests, readings and samples into seconds since measuring began."""
    if not turn.observed:
        return []
    ends = [one.end - turn.since for one in turn.observed]
    length = int(max(ends)) + 1
    succeeded, failed, tokens, in_flight = ([0.0] * length for _ in range(4))
    for one, end in zip(turn.observed, ends, strict=True):
        at = int(end)
        succeeded[at] += one.outcome == "ok"
        failed[at] += one.outcome == "failed"
        weight = one.tokens / len(one.arrivals) if one.tokens and one.arrivals else 1.0
        for arrival in one.arrivals:
            tokens[int(one.due + arrival - turn.since)] += weight
        for second in range(math.ceil(one.due - turn.since), math.ceil(end)):
            in_flight[min(second, length - 1)] += 1
    server: dict[int, dict[str, float]] = {int(one.at - turn.since): one.values for one in turn.scrapes}
    busy: dict[int, float] = defaultdict(float)
    for samples in turn.samples:
        for sample in samples:
            busy[int(sample.at - turn.since)] = max(busy[int(sample.at - turn.since)], sample.cpu)
    return [
        TimelineSecond(
            turn=number,
            second=second,
            succeeded=int(succeeded[second]),
            failed=int(failed[second]),
            output_tokens=round(tokens[second]),
            in_flight=int(in_flight[second]),
            kv_use=server.get(second, {}).get("kv_use"),
            running=server.get(second, {}).get("running"),
            waiting=server.get(second, {}).get("waiting"),
            client_cpu=busy.get(second),
        )
        for second in range(length)
    ]
