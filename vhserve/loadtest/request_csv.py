"""The CSV: one row for every measured request.

Owns the columns. Times are seconds; what a request does not have is empty.
"""

import csv
import io
from collections.abc import Mapping, Sequence

from vhserve.loadtest.records import RequestRecord

COLUMNS = (
    *("endpoint", "turn", "number", "kind", "due", "lag", "ttft", "tpot", "e2e", "itl_max"),
    *("output_tokens", "prompt_tokens", "outcome", "error", "detail"),
)


def csv_text(endpoints: Mapping[str, Sequence[Sequence[RequestRecord]]]) -> str:
    """Write the requests of each endpoint's turns; `due` counts from the first request of the turn."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, turns in endpoints.items():
        for turn, seen in enumerate(turns):
            for one in seen:
                timed = bool(one.arrivals)
                writer.writerow(
                    [
                        *(name, turn, one.number, one.kind, _cell(one.due - seen[0].due)),
                        _cell(None if one.sent is None else one.lag),
                        _cell(one.ttft if timed else None),
                        _cell(one.tpot if timed and one.outcome == "ok" else None),
                        _cell(one.e2e if timed and one.outcome == "ok" else None),
                        _cell(max(one.itl, default=None) if timed else None),
                        *(one.tokens, one.prompt_tokens, one.outcome, one.error or "", one.detail or ""),
                    ]
                )
    return buffer.getvalue()


def _cell(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.6f}"
