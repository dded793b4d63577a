"""What a load test found, as tables and warnings for the terminal, and as the cells that the page shows too.

Owns which figures are shown and how they are written. Computes nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from calibrate.terminal_tables import FoldedTable
from vhserve.loadtest.results import SINGLE_ENDPOINT, Distribution, EndpointResult, LoadFigures, LoadTest

LATENCIES = {
    "ttft": "time to first token",
    "itl": "inter-token latency",
    "tpot": "time per output token",
    "e2e": "end to end",
    "lag": "sent late by",
}
"""Latencies that are shown, and their names."""

_RATIOS = (
    "p50_ttft",
    "p90_ttft",
    "p95_ttft",
    "p99_ttft",
    "p50_tpot",
    "p90_tpot",
    "p50_itl",
    "p99_itl",
    "p50_e2e",
    "p99_e2e",
)
_RATES = ("requests_per_second", "output_tokens_per_second", "goodput_per_second")


@dataclass(frozen=True)
class LoadTable:
    """A table: its title, its columns, and its rows of cells; the first cell of each names it."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def load_tables(document: LoadTest) -> Iterator[LoadTable]:
    """All tables, in order."""
    for one in document.endpoints:
        yield _latencies(one)
    yield _totals(document)
    if document.ratios:
        yield _ratios(document)
    found: list[tuple[str, ...]] = [
        (one.name, error.kind, str(error.count), error.first) for one in document.endpoints for error in one.errors
    ]
    if found:
        yield LoadTable("Failed requests", ("endpoint", "kind", "requests", "the first said"), found)
    if document.conditions:
        yield _conditions(document)


def _latencies(one: EndpointResult) -> LoadTable:
    rows = [(name, *_milliseconds(getattr(one.figures, key))) for key, name in LATENCIES.items()]
    if len(one.kinds) > 1:
        for key in ("ttft", "tpot", "e2e"):
            for kind, figures in one.kinds.items():
                rows.append((f"{LATENCIES[key]}, {kind}", *_milliseconds(getattr(figures, key))))
    title = f"Latency of {one.server.base_url}, milliseconds"
    return LoadTable(
        title if one.name == SINGLE_ENDPOINT else f"{one.name}: {title}",
        ("", "p50", "p90", "p95", "p99", "mean", "max"),
        rows,
    )


def _milliseconds(found: Distribution | None) -> tuple[str, ...]:
    if found is None:
        return ("-",) * 6
    return tuple(
        f"{1000 * value:,.1f}" for value in (found.p50, found.p90, found.p95, found.p99, found.mean, found.max)
    )


def _totals(document: LoadTest) -> LoadTable:
    rows: list[tuple[str, ...]] = []

    def add(name: str, cell: Callable[[EndpointResult], str]) -> None:
        rows.append((name, *(cell(one) for one in document.endpoints)))

    add("requests", lambda one: f"{one.figures.requests:,}")
    add("succeeded, failed, aborted", lambda one: _counts(one.figures))
    add("requests/s", lambda one: f"{one.figures.requests_per_second:.2f}")
    add("output tokens/s", lambda one: f"{one.figures.output_tokens_per_second:,.1f}")
    if document.slo:
        limits = ", ".join(f"{name} < {limit:g} s" for name, limit in document.slo.items())
        add(f"goodput, requests/s ({limits})", lambda one: _good(one.figures))
    add("tokens in, out, per request", lambda one: _tokens(one.figures))
    add("preemptions", lambda one: _number(one.server_load.preemptions, "{:.0f}"))
    add("KV cache in use, mean, most", lambda one: _pair(one.server_load.kv_use_mean, one.server_load.kv_use_max))
    add("most running, waiting", lambda one: _running(one))
    add("prefix cache hits", lambda one: _number(one.server_load.prefix_hit_share, "{:.1%}"))
    add("client's share of a core, mean, most", lambda one: _pair(one.client.cpu_mean, one.client.cpu_max))
    return LoadTable("Totals", ("", *(one.name for one in document.endpoints)), rows)


def _counts(found: LoadFigures) -> str:
    return f"{found.succeeded:,}, {found.failed:,}, {found.aborted:,}"


def _good(found: LoadFigures) -> str:
    share = "" if found.good_share is None else f" ({found.good_share:.1%} of requests)"
    return _number(found.goodput_per_second, "{:.2f}") + share


def _tokens(found: LoadFigures) -> str:
    if not found.succeeded:
        return "-"
    return f"{found.prompt_tokens / found.succeeded:.0f}, {found.output_tokens / found.succeeded:.0f}"


def _running(one: EndpointResult) -> str:
    return f"{_number(one.server_load.running_max, '{:.0f}')}, {_number(one.server_load.waiting_max, '{:.0f}')}"


def _pair(mean: float | None, most: float | None) -> str:
    return f"{_number(mean, '{:.1%}')}, {_number(most, '{:.1%}')}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _ratios(document: LoadTest) -> LoadTable:
    known = {ratio.figure: ratio for ratio in document.ratios}
    rows: list[tuple[str, ...]] = [
        (
            name.replace("_", " "),
            f"{known[name].pooled:.3f}",
            f"{known[name].median:.3f}",
            f"{known[name].low:.3f} to {known[name].high:.3f}",
        )
        for name in (*_RATIOS, *_RATES)
        if name in known
    ]
    return LoadTable("B / A", ("", "all turns", "median of rounds", "rounds"), rows)


def _conditions(document: LoadTest) -> LoadTable:
    rows: list[tuple[str, ...]] = []
    for one in document.conditions:
        cells = [
            _number(value, "{:g}") + ("" if name == SINGLE_ENDPOINT else f" ({name})")
            for name, value in one.found.items()
        ]
        rows.append((one.expression, ", ".join(cells), "fails" if one.violated else "passes"))
    return LoadTable("Conditions", ("fail if", "found", ""), rows)


def print_tables(document: LoadTest, console: Console) -> None:
    """Print all tables."""
    for grid in load_tables(document):
        table = FoldedTable(title=escape(grid.title), title_style="bold")
        textual = grid.title in ("Failed requests", "Conditions")
        for number, column in enumerate(grid.columns):
            table.add_column(escape(column), justify="left" if number == 0 or textual else "right")
        for row in grid.rows:
            table.add_row(*map(escape, row))
        console.print(table)


def warnings(document: LoadTest) -> Iterator[str]:
    """Sentences about what makes the figures doubtful."""
    for one in document.endpoints:
        which = "" if one.name == SINGLE_ENDPOINT else f"{one.name}: "
        if one.client.saturated:
            yield f"{which}the client is the bottleneck: {one.client.saturated}"
        if not one.figures.requests:
            yield f"{which}no request was due after the warm-up; give a higher --rate or a longer --duration"
        elif not one.figures.succeeded:
            yield f"{which}no request succeeded; {one.errors[0].kind if one.errors else 'all'}: " + (
                one.errors[0].first if one.errors else "aborted"
            )
        elif one.figures.failed:
            yield f"{which}{one.figures.failed} requests failed and are in no latency"
        if 0 < one.figures.succeeded < 100:
            yield f"{which}{one.figures.succeeded} requests are few: their 99th percentile is all but their maximum"


def print_warnings(document: LoadTest, console: Console) -> None:
    """Print all warnings, one on a line."""
    for warning in warnings(document):
        console.print(warning)
