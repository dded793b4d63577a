"""The logit lens' section (paper 4.2, supplement 7): ranks by layer and family, and where the answer settles.

Owns the figures and numbers; ranks come from `lens`.
"""

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, NullFormatter
from scipy.stats import norm, sem

from calibrate.ablation.tables import Grid
from calibrate.analysis.lens import settled
from calibrate.analysis.section import CsvRow, Section
from calibrate.analysis.tallies import Measured
from calibrate.analysis.words import percent, with_ci
from calibrate.drawing import SERIES, Drawing, new_figure, svg
from calibrate.stats.estimates import Estimate
from profiles.geometry import stage_layers
from profiles.names import STAGES


def settled_layer(measured: Measured, family: str | None) -> Estimate:
    """Mean over a family's samples of the layer behind which the answer has settled, from 0."""
    layers = settled(torch.from_numpy(measured.ranks(family))).double()
    mean = float(layers.mean())
    if len(layers) < 2:
        return Estimate(mean, None, None)
    reach = float(norm.ppf(0.975) * sem(layers.numpy()))
    return Estimate(mean, mean - reach, mean + reach)


def lens_section(measured: Measured) -> Section:
    """Median rank and share of rank 1 behind every layer, by family."""
    families = measured.families
    ranks = {family: measured.ranks(family) for family in families}
    layers = measured.ranks().shape[1]
    median = np.array([np.median(own, axis=0) for own in ranks.values()])
    first = np.array([(own == 1).mean(0) for own in ranks.values()])
    with new_figure(9.8, 1.3 + 0.26 * len(families) + 1.6) as figure:
        left, right = figure.subplots(1, 2)
        image = left.imshow(
            median, aspect="auto", interpolation="nearest", cmap="cividis_r", norm=LogNorm(1, max(median.max(), 2))
        )
        left.set_yticks(range(len(families)), families)
        left.set_xticks(range(0, layers, -(-layers // 12)))
        left.set(xlabel="layer", title="median rank of the final token")
        bar = figure.colorbar(image, ax=left, format=FuncFormatter(lambda rank, _: f"{rank:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        for number, (family, share) in enumerate(zip(families, first, strict=True)):
            colour, marker = SERIES[number % len(SERIES)]
            right.plot(100 * share, color=colour, marker=marker, markersize=3.5, linewidth=1, label=family)
        right.set(xlabel="layer", title="share of samples at rank 1 (%)", ylim=(-3, 103))
        right.grid(linewidth=0.3)
        right.spines[["top", "right"]].set_visible(False)
        for stage in STAGES[1:]:
            right.axvline(stage_layers(stage, layers).start - 0.5, color="#999999", linewidth=0.8, linestyle=":")
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        drawing = svg(figure)
    where = {family: settled_layer(measured, family) for family in families}
    rows: list[CsvRow] = []
    for index, family in enumerate(families):
        for layer in range(layers):
            own = ranks[family][:, layer]
            rows.append(
                {
                    "family": family,
                    "layer": layer,
                    "samples": len(own),
                    "median_rank": float(median[index, layer]),
                    "rank_quarter": float(np.quantile(own, 0.25)),
                    "rank_three_quarters": float(np.quantile(own, 0.75)),
                    "share_of_rank_1": float(first[index, layer]),
                    "mean_settled_layer": where[family].value,
                    "mean_settled_layer_low": where[family].low,
                    "mean_settled_layer_high": where[family].high,
                }
            )
    shown = [
        [
            [family],
            [with_ci(where[family], 2)],
            [_most_settled(measured, family)],
            [percent(float(first[index, -2]), 1)],
        ]
        for index, family in enumerate(families)
        if layers > 1
    ]
    return Section(
        name="logit-lens",
        title="Logit lens: where the answer settles",
        look_for="What each layer puts out at the last prompt position is read as if it were the last one's. Light is "
        "rank 1: the token that the model ends up with is the likeliest already. Families that settle in few layers "
        "need little of the image; in the paper POPE and MMBench do, and general questions, which ask to look twice, "
        "settle late. Early layers need not speak the last one's language, so that another rank there does not prove "
        "that the answer is unknown.",
        figures=[Drawing(drawing, "Median rank of the final token by family and layer, and share of rank 1", "")],
        rows=rows,
        table=Grid(
            "Where the answer settles",
            ["family", "mean settled layer (95%)", "nine tenths settled by layer", "rank 1 before the last layer"],
            shown,
        ),
    )


def _most_settled(measured: Measured, family: str) -> str:
    layers = settled(torch.from_numpy(measured.ranks(family))).double()
    return str(int(np.quantile(layers.numpy(), 0.9, method="inverted_cdf")))
