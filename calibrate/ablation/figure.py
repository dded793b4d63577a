"""The figure of an ablation curve: accuracy over the share of heads treated, one panel for each stage.

Does not know how anything was measured.
"""

import numpy as np
from matplotlib.axes import Axes

from calibrate.ablation.results import Ablation, AblationRow
from calibrate.ablation.tables import of_family, units_of, untreated
from calibrate.ablation.treatments import phrase_of
from calibrate.datasets.families import ALL
from calibrate.drawing import SERIES, new_figure, svg

_LABELS = {"bottom": "lowest {} first", "random": "random", "top": "highest {} first", "others": "not the highest {}"}


def accuracy_curve(ablation: Ablation) -> str:
    """Draw accuracy of all families over the share of heads treated, with 95% Wilson intervals, as SVG.

    Random draws are single marks, their mean the line.
    """
    stages = list(dict.fromkeys(row.stage for row in ablation.rows))
    with new_figure(4.2 * len(stages), 3.6) as figure:
        panels = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
        for panel, stage in zip(panels, stages, strict=True):
            _draw_stage(panel, ablation, [row for row in ablation.rows if row.stage == stage])
            where = "all layers" if stage == "all" else f"{stage} layers"
            panel.set(
                title=where,
                xlabel=f"share of the {units_of(ablation)} of {where}, {phrase_of(ablation.treatment)} (%)",
            )
        panels[0].set(ylabel=f"accuracy (%), n = {ablation.samples}, 95% interval", ylim=(-2, 102))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        return svg(figure)


def _draw_stage(axes: Axes, ablation: Ablation, rows: list[AblationRow]) -> None:
    base = of_family(ablation.baseline, ALL)
    axes.axhspan(100 * base.low, 100 * base.high, color="#999999", alpha=0.3, linewidth=0)
    axes.axhline(100 * base.accuracy, color="#555555", linewidth=0.8, linestyle="--", label=untreated(ablation))
    for number, select in enumerate(dict.fromkeys(row.select for row in rows)):
        colour, marker = SERIES[number]
        label = _LABELS[select].format(ablation.rank_by.replace("_", " "))
        own = [row for row in rows if row.select == select]
        shares = sorted({row.share for row in own})
        draws = [[of_family(row.figures, ALL) for row in own if row.share == share] for share in shares]
        mid = 100 * np.array([np.mean([one.accuracy for one in drawn]) for drawn in draws])
        x = 100 * np.array(shares)
        if all(len(drawn) == 1 for drawn in draws):
            low, high = (100 * np.array([getattr(one, end) for (one,) in draws]) for end in ("low", "high"))
            axes.errorbar(
                x, mid, yerr=np.stack([mid - low, high - mid]), color=colour, marker=marker, markersize=4, capsize=2
            )
            axes.plot([], [], color=colour, marker=marker, markersize=4, label=label)
            continue
        axes.plot(x, mid, color=colour, linewidth=1.2)
        for share, drawn in zip(x, draws, strict=True):
            y = [100 * one.accuracy for one in drawn]
            axes.plot([share] * len(y), y, color=colour, marker=marker, markersize=3.5, linestyle="", alpha=0.6)
        axes.plot([], [], color=colour, marker=marker, markersize=4, label=f"{label} (draws and mean)")
    axes.set_xlim(0, 104)
    axes.grid(linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
