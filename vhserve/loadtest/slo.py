"""The SLO: limits on single requests, such as `ttft<0.5,tpot<0.05`, and whether a request meets them.

Knows requests. Conditions on the figures of a whole run are in `conditions`.
"""

import re
from collections.abc import Mapping

from vhserve.loadtest.errors import BadExpression
from vhserve.loadtest.records import RequestRecord

LIMITED = ("ttft", "tpot", "e2e")
"""What an SLO can limit, in seconds."""

_LIMIT = re.compile(r"\s*(\w+)\s*<\s*(\d+(?:\.\d*)?|\.\d+)\s*")


def parse_slo(text: str | None) -> dict[str, float]:
    """Read limits in seconds; no text, no limits.

    Raises
    ------
    BadExpression
    """
    limits: dict[str, float] = {}
    for part in text.split(",") if text is not None else ():
        found = _LIMIT.fullmatch(part)
        if found is None or found[1] not in LIMITED or found[1] in limits or float(found[2]) <= 0:
            raise BadExpression(
                f"--slo {part.strip()!r} is no limit",
                expected=f"one limit in seconds for each of {', '.join(LIMITED)}, such as ttft<0.5,tpot<0.05",
                fix="correct it",
            )
        limits[found[1]] = float(found[2])
    return limits


def meets(seen: RequestRecord, limits: Mapping[str, float]) -> bool:
    """Whether a request succeeded within every limit; a reply of one token has no TPOT to limit."""
    if seen.outcome != "ok":
        return False
    values = {"ttft": seen.ttft, "tpot": seen.tpot, "e2e": seen.e2e}
    return all((value := values[name]) is None or value < limit for name, limit in limits.items())
