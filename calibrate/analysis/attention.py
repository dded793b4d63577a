"""Image weight and box weight per layer and head, by setting (paper 3.3 and 4.1, figure 3); plain against drawn box;
right against wrong answers.

Owns these sections. What was measured is `tallies`'.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from calibrate.analysis.jackknife import jackknife_arrays
from calibrate.analysis.panels import head_panels
from calibrate.analysis.section import CsvRow, Section
from calibrate.analysis.tallies import Measured
from calibrate.analysis.words import counted, number, percent
from calibrate.datasets.families import ALL
from calibrate.drawing import Drawing
from calibrate.stats.estimates import Estimates

Array = npt.NDArray[np.float64]
TableName = Literal["image_weight", "box_weight", "concentration", "product"]

DRAWN: Final = "_box"
"""End of the name of a family whose box is drawn on the picture; without it, the same questions on plain pictures."""
FEW_WRONG: Final = 20
"""Fewer right or wrong answers than this are not compared."""


def pairs(families: Sequence[str]) -> list[tuple[str, str]]:
    """Families as they are and with the box drawn."""
    return [(family, family + DRAWN) for family in families if family + DRAWN in families]


def difference(
    measured: Measured,
    table: TableName,
    first: tuple[str | None, bool | None],
    second: tuple[str | None, bool | None],
) -> Estimates | None:
    """How much more of something every head has in the second of two groups, `(layers, query heads)`.

    Parameters
    ----------
    first, second
        Family (`None`: all), and whether its right answers, its wrong ones or both (`None`).
    """

    def of(folds: Sequence[int]) -> Array | None:
        before, after = (measured.means(family, right=right, folds=folds) for family, right in (first, second))
        if before is None or after is None:
            return None
        a, b = getattr(before, table), getattr(after, table)
        return None if a is None or b is None else b - a

    return jackknife_arrays(measured, of)


def attention_section(measured: Measured) -> Section:
    """Maps of image weight and box weight, a panel for each family."""
    families = measured.families
    means = {family: measured.means(family) for family in families}
    known = {family: one for family, one in means.items() if one is not None}
    titles = {family: f"{family} (n = {one.samples:,})" for family, one in known.items()}
    figures = [
        Drawing(
            head_panels({titles[family]: one.image_weight for family, one in known.items()}, "image weight", columns=4),
            "Maps of image weight by layer and head, one for each question family",
            "Image weight: share of the last prompt position's attention that falls on image tokens.",
        )
    ]
    boxed = {titles[family]: one.box_weight for family, one in known.items() if one.box_weight is not None}
    statements = []
    if boxed:
        figures.append(
            Drawing(
                head_panels(boxed, "box weight", columns=4),
                "Maps of box weight by layer and head, one for each question family with boxes",
                "Box weight: share of attention on image tokens inside the question's box.",
            )
        )
    without = [family for family in known if known[family].box_weight is None]
    if without:
        statements.append(f"No box weight for {', '.join(without)}: no box, or none that can be mapped onto tokens.")
    return Section(
        name="attention",
        title="Attention to the image and to the box",
        look_for="Each cell is a head; lines part early, middle and late layers. Look for rows that are light across "
        "families: layers that look at the image whatever is asked. A head with high image weight but no box weight "
        "looks elsewhere than where the question points; one with high box weight has found the place. In the paper "
        "image weight is high in the first layers, lower in the next, higher again in the middle and low at the end.",
        figures=figures,
        statements=statements,
        rows=_head_rows(measured),
    )


def _head_rows(measured: Measured) -> list[CsvRow]:
    rows: list[CsvRow] = []
    for family in measured.groups:
        one = measured.means(family)
        if one is None:
            continue
        for layer, head in np.ndindex(*one.image_weight.shape):
            rows.append(
                {
                    "family": family or ALL,
                    "layer": layer,
                    "head": head,
                    "samples": one.samples,
                    "image_weight": float(one.image_weight[layer, head]),
                    "box_weight": None if one.box_weight is None else float(one.box_weight[layer, head]),
                    "concentration": float(one.concentration[layer, head]),
                    "weight_times_concentration": float(one.product[layer, head]),
                    "score": float(one.score[layer, head]),
                }
            )
    return rows


def drawn_section(measured: Measured) -> Section | None:
    """Plain against drawn box; nothing where the dataset does not have both."""
    tables: dict[str, Array] = {}
    rows: list[CsvRow] = []
    statements = []
    for plain, drawn in pairs(measured.families):
        for table, words in (("image_weight", "image weight"), ("box_weight", "box weight")):
            found = difference(measured, table, (plain, None), (drawn, None))  # type: ignore[arg-type]
            if found is None:
                continue
            tables[f"{plain}: {words}"] = found.value
            rows += contrast_rows(found, {"plain": plain, "drawn": drawn, "table": table})
            statements.append(f"{plain}, {words}: {_summary(found)}")
    if not tables:
        return None
    return Section(
        name="drawn-box",
        title="Plain against drawn box",
        look_for="How much more each head attends when the box is drawn on the picture: orange is less, purple is "
        "more. In the paper little changes in image weight: a drawn box does not make other heads look at the image. "
        "If boxes are found by the outline, box weight rises instead.",
        figures=[
            Drawing(
                head_panels(tables, "with the box drawn minus plain", columns=2, difference=True),
                "Maps of what a drawn box changes in image weight and box weight, by layer and head",
                "Change when the box is drawn.",
            )
        ],
        statements=statements,
        rows=rows,
    )


def answers_section(measured: Measured) -> Section:
    """Right against wrong answers, over all families that have both."""
    wrong, right = int((~measured.right()).sum()), int(measured.right().sum())
    about = (
        "How attention differs when the answer is right: purple is more, orange is less. A head that matters looks "
        "more, or more narrowly, when the model is right. Families are pooled, so that one that is both harder and "
        "seen differently shows here too (its own rows are in the CSV file)."
    )
    section = Section(name="right-against-wrong", title="Right against wrong answers", look_for=about)
    if min(right, wrong) < FEW_WRONG:
        few = f"Not compared: {counted(right, 'right answer')} and {counted(wrong, 'wrong one')}, "
        return Section(section.name, section.title, about, statements=[f"{few}of which {FEW_WRONG} each are wanted."])
    tables, rows, statements = {}, list[CsvRow](), []
    for table, words in (("image_weight", "image weight"), ("concentration", "concentration")):
        found = difference(measured, table, (None, False), (None, True))  # type: ignore[arg-type]
        if found is not None:
            tables[words] = found.value
            rows += contrast_rows(found, {"family": "all", "table": table})
            statements.append(f"{words.capitalize()}: {_summary(found)}")
        for family in measured.families:
            own = difference(measured, table, (family, False), (family, True))  # type: ignore[arg-type]
            if own is not None:
                rows += contrast_rows(own, {"family": family, "table": table})
    figure = Drawing(
        head_panels(tables, "right minus wrong", columns=2, difference=True),
        "Maps of image weight and concentration of right minus wrong answers, by layer and head",
        f"{right:,} right and {wrong:,} wrong answers of all families.",
    )
    return Section(section.name, section.title, about, figures=[figure], statements=statements, rows=rows)


def contrast_rows(found: Estimates, fixed: CsvRow) -> list[CsvRow]:
    """A row for each head of a difference, `(layers, query heads)`; every row has the fields `fixed` too."""
    return [
        {
            **fixed,
            "layer": layer,
            "head": head,
            "difference": float(found.value[layer, head]),
            "low": None if found.low is None else float(found.low[layer, head]),
            "high": None if found.high is None else float(found.high[layer, head]),
        }
        for layer, head in np.ndindex(*found.value.shape)
    ]


def _summary(found: Estimates) -> str:
    place = np.unravel_index(np.abs(found.value).argmax(), found.value.shape)
    apart = "" if found.apart is None else f"; {found.apart} of {found.value.size} intervals do not hold 0"
    chance = "" if found.apart is None else f" ({percent(0.05, 0)} would by chance)"
    return (
        f"mean change {number(float(found.value.mean()))}, mean size of a change "
        f"{number(float(np.abs(found.value).mean()))}, largest {number(float(found.value[place]))} in layer {place[0]} "
        f"head {place[1]}{apart}{chance}."
    )
