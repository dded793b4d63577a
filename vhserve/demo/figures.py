"""The report's figures as SVG: head scores, treatments, accuracy per family.

Owns what is drawn of a profile, a plan and the arms. Does not own the style (`calibrate.drawing`).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Patch, Rectangle

from calibrate.drawing import SERIES, new_figure, svg
from profiles.geometry import stage_layers
from profiles.names import STAGES
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS
from vhserve.demo.results import DemoArmResult


def head_map(values: npt.NDArray[np.float64], label: str, group_size: int = 1) -> str:
    """Draw a value of every head, `(layers, heads)`, layers down and heads across; darker is lower.

    With a `group_size` above 1 the values are of KV groups of so many query heads, `(layers, KV heads)`. Colours
    follow the square root: scores fall with the layer by definition, and late layers would else all be black.
    """
    layers, heads = values.shape
    with new_figure(*_map_size(layers, heads, 1.1)) as figure:
        axes = figure.add_subplot()
        mesh = axes.pcolormesh(values, cmap="cividis", norm=PowerNorm(0.5, vmin=0, vmax=float(values.max()) or 1.0))
        figure.colorbar(mesh, ax=axes, label=label)
        _lay_out(axes, layers, heads, "white", group_size)
        return svg(figure)


def treatment_map(plan: PruningPlan) -> str:
    """Draw what a plan does with every head, or with every KV group that it treats at once; dots: protected."""
    layers, size = plan.geometry.layers, plan.heads_together
    heads = plan.geometry.query_heads // size
    with new_figure(*_map_size(layers, heads, 1.5)) as figure:
        axes = figure.add_subplot()
        for layer, row in enumerate(plan.treatments):
            for head, name in enumerate(row[::size]):
                treatment = TREATMENTS[name]
                axes.add_patch(
                    Rectangle(
                        (head, layer),
                        1,
                        1,
                        facecolor=treatment.colour,
                        hatch=treatment.hatch,
                        edgecolor="#666666",
                        linewidth=0.4,
                    )
                )
        protected = sorted({(layer, head // size) for layer, head in plan.selection.protected})
        if protected:
            axes.plot(
                [head + 0.5 for _, head in protected], [layer + 0.5 for layer, _ in protected], "k.", label="protected"
            )
        marks = [
            Patch(facecolor=one.colour, hatch=one.hatch, edgecolor="#666666", label=one.label)
            for one in TREATMENTS.values()
            if any(one.name in row for row in plan.treatments)
        ]
        dots, _ = axes.get_legend_handles_labels()
        figure.legend(handles=[*marks, *dots], loc="outside right upper", frameon=False)
        axes.set(xlim=(0, heads), ylim=(0, layers))
        _lay_out(axes, layers, heads, "black", size)
        return svg(figure)


def accuracy_plot(arms: Sequence[DemoArmResult]) -> str:
    """Draw every arm's accuracy per family with its interval."""
    families = [figures.family for figures in arms[0].accuracy.figures]
    with new_figure(6.5, 0.8 + 0.32 * len(families)) as figure:
        axes = figure.add_subplot()
        for number, arm in enumerate(arms):
            colour, marker = SERIES[number % len(SERIES)]
            shift = 0.32 * ((number + 0.5) / len(arms) - 0.5)
            found = {one.family: one for one in arm.accuracy.figures}
            points = [(place + shift, found[name]) for place, name in enumerate(families) if name in found]
            known = [(y, p.accuracy, p.low, p.high) for y, p in points if p.accuracy is not None]
            if not known:
                continue
            y, mid, low, high = (100 * np.array(column, dtype=float) for column in zip(*known, strict=True))
            errors = [mid - low, high - mid]
            axes.errorbar(mid, y / 100, xerr=errors, fmt=marker, color=colour, capsize=2, markersize=4, label=arm.name)
        axes.set(xlim=(0, 102), xlabel="accuracy in %, with 95% interval")
        axes.set_yticks(range(len(families)), families)
        axes.set_ylim(len(families) - 0.5, -0.5)
        axes.grid(axis="x", linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper right", frameon=False, ncols=len(arms))
        return svg(figure)


def _map_size(layers: int, heads: int, beside: float) -> tuple[float, float]:
    cell = min(0.28, 6.0 / max(layers, heads))
    return heads * cell + 1.0 + beside, layers * cell + 0.9


def _lay_out(axes: Axes, layers: int, heads: int, line: str, group_size: int) -> None:
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set(xlabel="head" if group_size == 1 else f"KV group, {group_size} query heads each", ylabel="layer")
    for setter, count in ((axes.set_xticks, heads), (axes.set_yticks, layers)):
        step = -(-count // 16)
        setter([place + 0.5 for place in range(0, count, step)], [str(place) for place in range(0, count, step)])
    for stage in STAGES[1:]:
        axes.axhline(stage_layers(stage, layers).start, color=line, linewidth=1.2)
