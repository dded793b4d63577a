"""The report page of a load test: one HTML file that needs nothing but itself, on screen and in print.

Owns which plots and facts are on the page. Words and looks are the template's, which escapes everything that comes from
outside; plots are data URLs; there is no script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from calibrate.drawing import Drawing
from vhserve.loadtest.plots import RequestGroups, latency_curves, latency_over_time, ratio_plot, server_side, throughput
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.results import LoadTest
from vhserve.loadtest.tables import load_tables, warnings
from vhserve.report import html


def render(document: LoadTest, requests: Mapping[str, Sequence[Sequence[RequestRecord]]]) -> str:
    """Write the page.

    Parameters
    ----------
    requests
        Measured requests of every turn, by the endpoint's name.

    Returns
    -------
    HTML without references to anything outside.
    """
    names = " and ".join(one.server.base_url for one in document.endpoints)
    sent = sum(one.figures.requests for one in document.endpoints)
    return html.render(
        "load_test",
        title=f"Load test of {names}",
        lead=f"{document.started}, {document.arrivals}, {sent:,} requests, {document.seconds:.0f} s in all",
        warnings=list(warnings(document)),
        tables=list(load_tables(document)),
        plots=_plots(document, _groups(document, requests)),
        facts=_facts(document),
    )


def _groups(document: LoadTest, requests: Mapping[str, Sequence[Sequence[RequestRecord]]]) -> RequestGroups:
    """Groups that the plots distinguish: the endpoints, or, of a single one, the kinds of request."""
    placed = {name: [one for turn in turns for one in _from_start(turn)] for name, turns in requests.items()}
    if len(placed) > 1:
        return placed
    seen = placed[document.endpoints[0].name]
    return {kind: [one for one in seen if one.kind == kind] for kind in sorted({one.kind for one in seen})}


def _from_start(turn: Sequence[RequestRecord]) -> list[RequestRecord]:
    return [replace(one, due=one.due - turn[0].due) for one in turn]


def _plots(document: LoadTest, groups: RequestGroups) -> list[Drawing]:
    if not any(one.outcome == "ok" for seen in groups.values() for one in seen):
        return []
    plots = [
        Drawing(
            latency_curves(groups, document.slo), "Share of requests over latency", "Dashed: the SLO, where it is near."
        ),
        Drawing(latency_over_time(groups), "Time to first token of every request", "Crosses on top: failed."),
        Drawing(throughput(document.endpoints), "Output tokens and requests under way, by second"),
    ]
    drawn = server_side(document.endpoints)
    if drawn is not None:
        plots.append(
            Drawing(drawn, "KV cache in use and waiting requests, by second", "As the server's /metrics tell.")
        )
    if document.ratios:
        words = "Dots: all turns together. Lines: from the lowest round to the highest."
        plots.append(Drawing(ratio_plot(document.ratios), "Ratios of B to A", words))
    return plots


def _facts(document: LoadTest) -> list[tuple[str, str]]:
    facts = []
    for one in document.endpoints:
        plan = f", plan {one.server.plan_digest}" if one.server.plan_digest else ""
        facts.append((one.name, f"{one.server.base_url}, model {one.server.model}{plan}"))
    return [
        *facts,
        ("arguments", ", ".join(f"{name} {value}" for name, value in document.arguments.items() if value is not None)),
        ("seed", str(document.seed)),
        ("versions", ", ".join(f"{name} {value}" for name, value in document.versions.items())),
        ("commit", document.commit or "not in a git checkout"),
        ("started", document.started),
    ]
