"""Weight against concentration (paper 4.3 and 4.4, figures 1 and 7), heads by layer, and the top heads of each stage.

Owns these sections. What was measured is `tallies`'.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from calibrate.ablation.tables import Grid
from calibrate.analysis.jackknife import jackknife_arrays
from calibrate.analysis.section import CsvRow, Section
from calibrate.analysis.tallies import Means, Measured
from calibrate.drawing import SERIES, Drawing, new_figure, svg
from profiles.geometry import run_name, stage_layers, stage_of
from profiles.names import STAGES

Array = npt.NDArray[np.float64]

FAINT: Final = 0.05
"""Image weight below which a head's concentration says little: it spreads what it hardly gives."""
TOP: Final = 5
"""Heads, or KV groups, of each stage that the page lists."""


def narrowness(means: Means) -> Array:
    """Concentration of each layer, `(layers,)`: mean over its heads, each counted by its image weight.

    Plainly averaged, heads that hardly see the image would say how narrowly it is seen.
    """
    return means.product.sum(1) / np.maximum(means.image_weight.sum(1), 1e-12)


def scatter_section(measured: Measured) -> Section:
    """Weight against concentration, a panel for each family."""
    families = measured.families
    columns = min(4, len(families))
    rows = -(-len(families) // columns)
    with new_figure(max(2.05 * columns + 0.4, 4.2), 2.1 * rows + 0.8) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(families) :]:
            axes.set_visible(False)
        for axes, family in zip(grid.flat, families, strict=False):
            one = measured.means(family)
            if one is None:
                continue
            for (colour, marker), stage in zip(SERIES, STAGES, strict=False):
                own = list(stage_layers(stage, len(one.image_weight)))
                x, y = one.image_weight[own].ravel(), one.concentration[own].ravel()
                face = [colour if weight >= FAINT else "none" for weight in x]
                axes.scatter(x, y, s=14, marker=marker, facecolors=face, edgecolors=colour, linewidths=0.7)
            axes.set_title(family, fontsize=9)
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            axes.grid(linewidth=0.3)
        for axes in grid[:, 0]:
            axes.set_ylabel("concentration")
        for axes in grid[-1]:
            axes.set_xlabel("image weight")
        marks = [
            grid[0, 0].plot([], [], marker, color=colour, markersize=4, label=stage)[0]
            for (colour, marker), stage in zip(SERIES, STAGES, strict=False)
        ]
        figure.legend(handles=marks, loc="outside upper center", ncols=3, frameon=False)
        drawing = svg(figure)
    return Section(
        name="weight-and-concentration",
        title="Weight against concentration",
        look_for="Each mark is a head, its means over a family's samples. Visual heads stand to the right; those that "
        "look at the image as a whole at the bottom, those that look at a place at the top. Hollow marks have less "
        f"than {FAINT:g} of their attention on the image, so that their concentration says little. Families whose "
        "clouds look alike are seen alike; how alike is measured below.",
        figures=[
            Drawing(
                drawing,
                "Scatter of concentration over image weight of every head, one panel for each question family",
                "Concentration is 0 for attention spread evenly over the image tokens and 1 for all of it on one.",
            )
        ],
        rows=[],
    )


def layers_section(measured: Measured) -> Section:
    """What a layer's heads do on average: image weight, concentration, and their product."""
    curves: dict[str, dict[str, tuple[Array, Array | None, Array | None]]] = {}
    named = ("image weight", "concentration, by weight", "weight times concentration")
    for family in measured.families:

        def of(folds: Sequence[int], family: str = family) -> Array | None:
            one = measured.means(family, folds=folds)
            if one is None:
                return None
            return np.stack([one.image_weight.mean(1), narrowness(one), one.product.mean(1)])

        found = jackknife_arrays(measured, of)
        if found is not None:
            ends = (found.low, found.high)
            curves[family] = {
                name: (found.value[row], *(None if end is None else end[row] for end in ends))
                for row, name in enumerate(named)
            }
    with new_figure(9.4, 3.3) as figure:
        panels = figure.subplots(1, len(named))
        for axes, name in zip(panels, named, strict=True):
            for number, (family, own) in enumerate(curves.items()):
                colour, marker = SERIES[number % len(SERIES)]
                mid, low, high = own[name]
                layers = np.arange(len(mid))
                axes.plot(layers, mid, color=colour, marker=marker, markersize=3.5, linewidth=1, label=family)
                if low is not None and high is not None:
                    axes.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.set(xlabel="layer", title=name)
            axes.set_ylim(bottom=0)
            axes.grid(linewidth=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            for stage in STAGES[1:]:
                axes.axvline(stage_layers(stage, len(mid)).start - 0.5, color="#999999", linewidth=0.8, linestyle=":")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4), frameon=False)
        drawing = svg(figure)
    rows: list[CsvRow] = [
        {
            "family": family,
            "table": name,
            "layer": layer,
            "mean": float(mid[layer]),
            "low": None if low is None else float(low[layer]),
            "high": None if high is None else float(high[layer]),
        }
        for family, own in curves.items()
        for name, (mid, low, high) in own.items()
        for layer in range(len(mid))
    ]
    return Section(
        name="layers",
        title="Heads by layer",
        look_for="The mean of each layer's heads, with bands of the 95% interval; dotted lines part the stages. Where "
        "the curves of families part, what is asked decides how the image is seen; where they run together, the layer "
        "does the same whatever is asked. Concentration counts each head by its image weight. The last panel, weight "
        "times concentration, is what the head score multiplies with its layer's factor 1 / (layer + 1).",
        figures=[Drawing(drawing, "Curves over the layers of image weight, concentration and their product", "")],
        rows=rows,
    )


def top_section(measured: Measured, group_size: int = 1) -> Section:
    """The heads with the highest scores of each stage.

    Parameters
    ----------
    group_size
        Above 1, KV groups of so many query heads are listed, each with the means of its heads.

    Raises
    ------
    ValueError
        Nothing was measured.
    """
    means = measured.means()
    if means is None:
        raise ValueError("nothing was measured")
    layers = len(means.score)

    def grouped(table: Array) -> Array:
        return table.reshape(layers, -1, group_size).mean(2)

    def scores(folds: Sequence[int]) -> Array | None:
        one = measured.means(folds=folds)
        return None if one is None else grouped(one.score)

    score, image_weight, concentration = map(grouped, (means.score, means.image_weight, means.concentration))
    box_weight = None if means.box_weight is None else grouped(means.box_weight)
    unit, units = ("head", "heads") if group_size == 1 else ("kv_group", "KV groups")

    found = jackknife_arrays(measured, scores)
    rows: list[CsvRow] = []
    places = [(int(layer), int(head)) for layer, head in np.ndindex(*score.shape)]
    for layer, head in sorted(places, key=lambda place: (-score[place], place)):
        stage = stage_of(layer, layers)
        rows.append(
            {
                "stage": stage,
                "rank_in_stage": 1 + sum(row["stage"] == stage for row in rows),
                "layer": layer,
                unit: head,
                "score": float(score[layer, head]),
                "low": None if found is None or found.low is None else float(found.low[layer, head]),
                "high": None if found is None or found.high is None else float(found.high[layer, head]),
                "image_weight": float(image_weight[layer, head]),
                "concentration": float(concentration[layer, head]),
                "box_weight": None if box_weight is None else float(box_weight[layer, head]),
            }
        )
    shown = [row for stage in STAGES for row in rows if row["stage"] == stage and int(str(row["rank_in_stage"])) <= TOP]
    place = ["head"] if group_size == 1 else ["group", "heads"]
    return Section(
        name="top-heads",
        title=f"Top {units} of each stage",
        look_for=f"The {units} with the highest score (layer factor times weight times concentration"
        f"{'' if group_size == 1 else f', the mean over {group_size} query heads'}), over all families. "
        "The score favours low layers by its definition, so that scores of different stages do not compare; image "
        f"weight and concentration do. All {units} are in the CSV file.",
        rows=rows,
        table=Grid(
            f"Top {TOP} {units} of each stage",
            ["stage", "layer", *place, "score", "95% interval", "image weight", "concentration", "box weight"],
            [[[cell] for cell in _cells(row, unit, group_size)] for row in shown],
        ),
    )


def _cells(row: CsvRow, unit: str, group_size: int) -> list[str]:
    interval = "" if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}"
    box = "" if row["box_weight"] is None else f"{row['box_weight']:.3f}"
    numbers = [f"{row['score']:.4f}", interval, f"{row['image_weight']:.3f}", f"{row['concentration']:.3f}", box]
    first = int(str(row[unit])) * group_size
    heads = [] if group_size == 1 else [run_name(range(first, first + group_size))]
    return [str(row["stage"]), str(row["layer"]), str(row[unit]), *heads, *numbers]
