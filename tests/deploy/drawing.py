"""Draws the dashboard's panels from Prometheus' answers, for the docs. Knows no queries."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PANEL = (4.2, 2.5)
"""Inches of one graph."""


def draw(panels: list[tuple[dict[str, Any], list[tuple[str, list[dict[str, Any]]]]]], path: Path) -> None:
    """Write a figure; each panel comes with the legend and the series of each of its queries."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import PercentFormatter

    columns = 4
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (panel, answers) in zip(axes.flat, panels, strict=False):
        axis.set_title(panel["title"], fontsize=9, loc="left")
        lines = [(named(legend, one["metric"]), one["values"]) for legend, found in answers for one in found]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        if panel["type"] == "timeseries":
            first = min(float(values[0][0]) for _, values in lines)
            for name, values in lines[:8]:
                axis.plot(
                    [float(at) - first for at, _ in values], [float(value) for _, value in values], label=name, lw=1
                )
            axis.legend(fontsize=6, loc="best", framealpha=0.6)
            axis.set_xlabel("s", fontsize=6)
            axis.set_ylim(bottom=0)
            if unit == "percentunit":
                axis.yaxis.set_major_formatter(PercentFormatter(1))
            axis.set_ylabel({"percentunit": "", "short": ""}.get(unit, unit), fontsize=6)
            axis.tick_params(labelsize=6)
            axis.grid(alpha=0.3)
        else:
            axis.set_axis_off()
            for place, (name, values) in enumerate(lines[:6]):
                text = f"{name}: {float(values[-1][1]):.4g}" if name else f"{float(values[-1][1]):.4g}"
                axis.text(0.02, 0.86 - 0.16 * place, text, fontsize=8, transform=axis.transAxes)
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    figure.suptitle(f"vhserve dashboard: demo model on two CPU cores, three streams, {when}", fontsize=10)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def named(legend: str, labels: dict[str, str]) -> str:
    """A legend as Grafana fills it in."""
    for name, value in labels.items():
        legend = legend.replace("{{" + name + "}}", value)
    return legend or labels.get("plan", "")
