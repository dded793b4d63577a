"""The report's plots as SVG: latencies by share of requests and over time, throughput, the server's metrics, ratios.

Owns what is drawn of requests and figures. Does not own the style (`calibrate.drawing`).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from calibrate.drawing import SERIES, new_figure, svg
from vhserve.evaluation.token_latency import quantiles
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.results import EndpointResult, Ratio, TimelineSecond

RequestGroups = Mapping[str, Sequence[RequestRecord]]
"""Requests by group: endpoints, or kinds of request. `due` counts from the start of measuring."""

Panel = tuple[str, Callable[[TimelineSecond], float | None]]
"""A panel's label, and what it draws of each second."""

_POINTS = 400
"""Points of a curve, however many requests there are."""


def latency_curves(groups: RequestGroups, slo: Mapping[str, float]) -> str:
    """Draw, for TTFT, TPOT and end to end, the share of requests that were at most so slow; dashed: the SLO."""
    with new_figure(9.0, 2.9) as figure:
        for axes, (name, label) in zip(
            figure.subplots(1, 3, sharey=True),
            (("ttft", "time to first token, ms"), ("tpot", "time per output token, ms"), ("e2e", "end to end, ms")),
            strict=True,
        ):
            for (group, seen), (colour, _) in zip(groups.items(), _colours(groups), strict=True):
                values = [getattr(one, name) for one in seen if one.outcome == "ok"]
                known = [1000 * value for value in values if value is not None]
                if known:
                    shares = np.linspace(0, 1, _POINTS)
                    axes.plot(quantiles(known, shares), 100 * shares, color=colour, label=group)
            axes.set(xlabel=label, xlim=(0, None), ylim=(0, 100))
            if name in slo and 1000 * slo[name] <= 2 * axes.get_xlim()[1]:  # one far away would squeeze the curves
                axes.axvline(1000 * slo[name], color="black", linestyle="--", linewidth=1)
            _tidy(axes)
        figure.axes[0].set_ylabel("% of requests at most so slow")
        if len(groups) > 1:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper right", frameon=False, ncols=len(groups))
        return svg(figure)


def latency_over_time(groups: RequestGroups) -> str:
    """Draw every request's TTFT over the time it was due; crosses at the top are failed requests."""
    with new_figure(9.0, 2.6) as figure:
        axes = figure.add_subplot()
        failed = []
        for (group, seen), (colour, marker) in zip(groups.items(), _colours(groups), strict=True):
            done = [one for one in seen if one.outcome == "ok"]
            failed += [one.due for one in seen if one.outcome == "failed"]
            axes.plot(
                [one.due for one in done],
                [1000 * one.ttft for one in done],
                marker,
                color=colour,
                markersize=2.5,
                label=group,
                rasterized=len(done) > 2000,  # as many marks would make the page slow
            )
        if failed:
            top = axes.get_ylim()[1]
            axes.plot(failed, [top] * len(failed), "kx", markersize=5, label="failed", clip_on=False)
        axes.set(xlabel="seconds since measuring began, when due", ylabel="time to first token, ms", ylim=(0, None))
        _tidy(axes)
        _legend(axes, len(groups) > 1 or bool(failed))
        return svg(figure)


def throughput(endpoints: Sequence[EndpointResult]) -> str:
    """Draw output tokens of every second and requests under way, turn after turn; dotted lines part the turns."""
    return _over_time(
        endpoints,
        (("output tokens/s", lambda one: one.output_tokens), ("requests under way", lambda one: one.in_flight)),
    )


def server_side(endpoints: Sequence[EndpointResult]) -> str | None:
    """Draw KV cache in use and requests that wait, as the server reports them; `None` where it reports nothing."""
    if not any(one.kv_use is not None for measured in endpoints for one in measured.timeline):
        return None
    return _over_time(
        endpoints,
        (
            ("KV cache in use, %", lambda one: None if one.kv_use is None else 100 * one.kv_use),
            ("requests waiting", lambda one: one.waiting),
        ),
    )


def ratio_plot(ratios: Sequence[Ratio]) -> str:
    """Draw ratios of second to first: all turns together, and the ends of the rounds."""
    with new_figure(6.5, 0.8 + 0.26 * len(ratios)) as figure:
        axes = figure.add_subplot()
        for place, one in enumerate(ratios):
            axes.plot([one.low, one.high], [place, place], color=SERIES[0][0], linewidth=2)
            axes.plot(one.pooled, place, "o", color=SERIES[0][0], markersize=5)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(ratios)), [one.figure.replace("_", " ") for one in ratios])
        axes.set(xlabel="B / A", ylim=(len(ratios) - 0.5, -0.5))
        _tidy(axes)
        return svg(figure)


def _over_time(endpoints: Sequence[EndpointResult], panels: Sequence[Panel]) -> str:
    with new_figure(9.0, 3.6) as figure:
        for axes, (label, value) in zip(figure.subplots(2, 1, sharex=True), panels, strict=True):
            for (colour, _), measured in zip(_colours(endpoints), endpoints, strict=True):
                values = [value(one) for one in measured.timeline]
                at = [x for x, y in enumerate(values) if y is not None]
                axes.plot(at, [values[x] for x in at], color=colour, label=measured.name, linewidth=1.2)
                for x, one in enumerate(measured.timeline):
                    if one.second == 0 and one.turn > 0:
                        axes.axvline(x, color=colour, linestyle=":", linewidth=0.8)
            axes.set(ylabel=label, ylim=(0, None))
            _tidy(axes)
        figure.axes[1].set_xlabel("seconds of measuring")
        _legend(figure.axes[0], len(endpoints) > 1)
        return svg(figure)


def _colours(groups: RequestGroups | Sequence[EndpointResult]) -> list[tuple[str, str]]:
    return [SERIES[number % len(SERIES)] for number in range(len(groups))]


def _tidy(axes: Axes) -> None:
    axes.grid(linewidth=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes, shown: bool) -> None:
    if shown:
        axes.legend(frameon=False, markerscale=2)
