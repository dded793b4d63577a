"""What of a demo means nothing, because a server did not answer or was never right.

Owns which measurements those are, and their lines; those of failed requests are `vhserve.evaluation.failures`'.
"""

from vhserve.demo.results import DemoResults
from vhserve.evaluation.failures import failed_requests, never_right, silent


def unanswered(results: DemoResults) -> list[str]:
    """Measurements in which a server answered nothing, in words: of an arm, or of its latencies at some concurrency."""
    arms = silent([arm.accuracy for arm in results.arms])
    return arms + [
        f"{arm.name} at {one.concurrency} at a time"
        for arm in results.arms
        for one in arm.latency
        if not one.requests and arm.name not in arms
    ]


def shortcomings(results: DemoResults) -> list[str]:
    """A line for each thing that the user should know of the figures; none where all is well."""
    arms = [arm.accuracy for arm in results.arms]
    late = unanswered(results)[len(silent(arms)) :]
    first = [one.first_error for arm in results.arms for one in arm.latency if one.first_error]
    lines = [
        failed_requests(arms),
        f"{' and '.join(late)} answered nothing: no latency is known; the first error: {first[0]}"
        if late and first
        else None,
        never_right(arms[0]),
    ]
    return [line for line in lines if line is not None]
