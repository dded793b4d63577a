"""Maps of heads side by side, layers down and heads across, on one colour scale.

Owns their looks. Does not know what is mapped.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from calibrate.drawing import new_figure, svg
from profiles.geometry import stage_layers
from profiles.names import STAGES

Array = npt.NDArray[np.float64]


def head_panels(tables: Mapping[str, Array], label: str, *, columns: int, difference: bool = False) -> str:
    """Draw tables of heads, each `(layers, query heads)`, as SVG; lines part the stages.

    Parameters
    ----------
    tables
        By the panels' titles; of one shape.
    label
        What the colours mean.
    columns
        Panels in a row.
    difference
        Colours for values of both signs, 0 being white; else for values from 0 on, higher being lighter.
    """
    count = len(tables)
    columns = min(columns, count)
    rows = -(-count // columns)
    layers, heads = next(iter(tables.values())).shape
    largest = max(float(np.abs(table).max()) for table in tables.values()) or 1.0
    colours = {"cmap": "PuOr", "vmin": -largest, "vmax": largest} if difference else {"vmin": 0, "vmax": largest}
    width = 7.8 / max(columns, 3)
    height = max(0.9, min(width * layers / heads, 2.6))
    with new_figure(width * columns + 0.9, (height + 0.35) * rows + 0.3) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for index, axes in enumerate(grid.flat):
            if index >= count:
                axes.set_visible(False)
                continue
            title = list(tables)[index]
            image = axes.imshow(
                tables[title], aspect="auto", interpolation="nearest", **({"cmap": "cividis"} | colours)
            )
            _lay_out(axes, layers, heads, "black" if difference else "white")
            axes.set_title(title, fontsize=9)
        for axes in grid[:, 0]:
            axes.set_ylabel("layer")
        for axes in grid[-1]:
            axes.set_xlabel("head")
        figure.colorbar(image, ax=grid, label=label, shrink=0.8, aspect=30)
        return svg(figure)


def _lay_out(axes: Axes, layers: int, heads: int, line: str) -> None:
    for setter, count in ((axes.set_xticks, heads), (axes.set_yticks, layers)):
        setter(range(0, count, -(-count // 8)))
    for stage in STAGES[1:]:
        axes.axhline(stage_layers(stage, layers).start - 0.5, color=line, linewidth=1)
