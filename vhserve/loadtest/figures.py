"""From requests to figures: latencies, throughput, goodput, errors by kind.

Owns which requests count in which figure. The latencies of a request, quantiles and throughput are defined in
`vhserve.evaluation.token_latency`. Knows neither files nor servers.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vhserve.evaluation.token_latency import elapsed, per_second, quantiles
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.results import Distribution, ErrorCount, LoadFigures
from vhserve.loadtest.slo import meets


def distribution(seconds: Iterable[float]) -> Distribution | None:
    """Summarise seconds; `None` when there are none."""
    values = np.fromiter(seconds, dtype=float)
    if not len(values):
        return None
    p50, p90, p95, p99 = quantiles(values, (0.5, 0.9, 0.95, 0.99))
    return Distribution(
        count=len(values), mean=float(values.mean()), p50=p50, p90=p90, p95=p95, p99=p99, max=float(values.max())
    )


def figures(turns: Sequence[Sequence[RequestRecord]], slo: Mapping[str, float]) -> LoadFigures:
    """Summarise measured requests.

    Parameters
    ----------
    turns
        Requests of each turn, without warm-up; the time between turns does not count.
    slo
        Limits that make a request good; empty: none are counted.
    """
    seen = [one for turn in turns for one in turn]
    done = [one for one in seen if one.outcome == "ok"]
    failed = sum(one.outcome == "failed" for one in seen)
    aborted = len(seen) - len(done) - failed
    seconds = sum(map(elapsed, turns))
    tokens = sum(one.tokens for one in done)
    good = sum(meets(one, slo) for one in seen) if slo else None
    judged = len(done) + failed
    return LoadFigures(
        requests=len(seen),
        succeeded=len(done),
        failed=failed,
        aborted=aborted,
        good=good,
        seconds=seconds,
        output_tokens=tokens,
        prompt_tokens=sum(one.prompt_tokens for one in done),
        requests_per_second=per_second(len(done), seconds),
        output_tokens_per_second=per_second(tokens, seconds),
        goodput_per_second=None if good is None else per_second(good, seconds),
        good_share=good / judged if good is not None and judged else None,
        error_share=failed / judged if judged else None,
        ttft=distribution(one.ttft for one in done),
        itl=distribution(gap for one in done for gap in one.itl),
        tpot=distribution(one.tpot for one in done if one.tpot is not None),
        e2e=distribution(one.e2e for one in done),
        lag=distribution(one.lag for one in seen if one.sent is not None),
    )


def errors(seen: Iterable[RequestRecord]) -> list[ErrorCount]:
    """Count failures by kind, most frequent first, each with the detail of its first."""
    failed = [one for one in seen if one.outcome == "failed"]
    first = {one.error: one.detail for one in reversed(failed)}
    counted = Counter(one.error for one in failed).most_common()
    return [ErrorCount(kind=kind or "unknown", count=count, first=first[kind] or "") for kind, count in counted]
