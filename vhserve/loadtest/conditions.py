"""Conditions on a run's figures, such as `p99_ttft>0.5`: what CI fails on.

Owns their grammar and the names of the figures. A figure that a run does not have, because nothing succeeded or the
server does not report it, violates every condition on it: a broken run must not pass.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vhserve.loadtest.errors import BadExpression
from vhserve.loadtest.results import Condition, EndpointResult, LoadFigures, Ratio

LATENCIES = ("ttft", "itl", "tpot", "e2e", "lag")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
COUNTS = (
    "requests",
    "failed",
    "aborted",
    "requests_per_second",
    "output_tokens_per_second",
    "goodput_per_second",
    "good_share",
    "error_share",
)
SERVER = ("preemptions", "kv_use_mean", "kv_use_max", "running_max", "waiting_max", "prefix_hit_share")
CLIENT = ("cpu_mean", "cpu_max")

_FIGURES = (*(f"{statistic}_{latency}" for latency in LATENCIES for statistic in STATISTICS), *COUNTS)
NAMES = (*_FIGURES, *SERVER, *(f"client_{name}" for name in CLIENT))
"""Figures that a condition can name; `ratio_` in front of those of its requests: second endpoint over first."""

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\d+(?:\.\d*)?|\.\d+)\s*")


@dataclass(frozen=True)
class FailCondition:
    """A parsed condition; the run fails where it holds."""

    expression: str
    name: str
    sign: str
    bound: float


def parse_conditions(texts: Sequence[str], compared: bool) -> list[FailCondition]:
    """Read conditions; ratios are there only when two endpoints are compared.

    Raises
    ------
    BadExpression
    """
    limits = []
    for text in texts:
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise BadExpression(
                f"--fail-if {text!r} is no condition",
                expected="a figure, one of > >= < <=, and a number",
                fix="correct it",
            )
        name = found[1]
        if name.startswith("ratio_") and not compared:
            raise BadExpression(
                f"--fail-if {text!r} asks for a ratio", expected="two endpoints", fix="give --compare URL_A URL_B"
            )
        if name not in NAMES and not (name.startswith("ratio_") and name.removeprefix("ratio_") in _FIGURES):
            raise BadExpression(
                f"--fail-if {text!r} names no figure",
                expected=f"{' '.join(STATISTICS)} of {' '.join(LATENCIES)}, such as p99_ttft, or one of "
                f"{', '.join(NAMES[len(LATENCIES) * len(STATISTICS) :])}; each with ratio_ in front under --compare",
                fix="correct it",
            )
        limits.append(FailCondition(" ".join(text.split()), name, found[2], float(found[3])))
    return limits


def value_of(figures: LoadFigures, name: str) -> float | None:
    """A figure of a group of requests by its name, such as `p99_ttft`; `None` where it has none."""
    statistic, _, latency = name.partition("_")
    if statistic in STATISTICS and latency in LATENCIES:
        found = getattr(figures, latency)
        return None if found is None else float(getattr(found, statistic))
    value = getattr(figures, name)
    return None if value is None else float(value)


def check(
    limits: Sequence[FailCondition], endpoints: Sequence[EndpointResult], ratios: Sequence[Ratio]
) -> list[Condition]:
    """Judge every condition, on every endpoint, or on the ratio of two."""
    conditions = []
    for limit in limits:
        if limit.name.startswith("ratio_"):
            known = {ratio.figure: ratio.pooled for ratio in ratios}
            found = {"ratio": known.get(limit.name.removeprefix("ratio_"))}
        else:
            found = {one.name: _value(one, limit.name) for one in endpoints}
        holds = _COMPARE[limit.sign]
        violated = any(value is None or holds(value, limit.bound) for value in found.values())
        conditions.append(Condition(expression=limit.expression, found=found, violated=violated))
    return conditions


def _value(measured: EndpointResult, name: str) -> float | None:
    if name in SERVER:
        value: float | None = getattr(measured.server_load, name)
        return value
    if name.startswith("client_"):
        return float(getattr(measured.client, name.removeprefix("client_")))
    return value_of(measured.figures, name)
