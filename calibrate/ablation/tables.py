"""Tables of an ablation, for the terminal and as Markdown.

Owns their cells: accuracy, difference from the baseline with its 95% interval, McNemar's p. Several draws are shown as
their mean, with the mean of their intervals and twice the mean of their p, which is a p-value however the draws depend
on one another (Vovk and Wang, "Combining p-values via averaging", 2020). Does not know how anything was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.markup import escape
from rich.table import Table

from calibrate.ablation.results import Ablation, AblationRow, ComparedFigures, FamilyFigures, Published
from calibrate.ablation.treatments import phrase_of
from calibrate.datasets.families import ALL
from calibrate.terminal_tables import FoldedTable

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
NOT = " n.s."

PUBLISHED = {
    "yes_no": {"f1": "F1", "yes_ratio": "share of yes"},
    "circular": {"circular_accuracy": "circular accuracy"},
}
"""Of each metric, what tables show, and how it is called."""

SIGNIFICANT = 0.05

AnyFigures = TypeVar("AnyFigures", bound=FamilyFigures)


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn; a cell is one or more lines."""

    title: str
    header: list[str]
    rows: list[list[list[str]]]
    note: str = ""


def stage_grid(ablation: Ablation) -> Grid:
    """The paper's table: one row for each way to choose heads, or KV groups, one column for each number of them."""
    ks = sorted({row.k for row in ablation.rows})
    base = of_family(ablation.baseline, ALL)
    rows = [[["none"], *[[_percent(base.accuracy), _interval(base.low, base.high)]] * len(ks)]]
    for label, chosen in _groups(ablation):
        cells = [_cell([of_family(row.figures, ALL) for row in chosen if row.k == k]) for k in ks]
        rows.append([[label], *cells])
    subject = _subject(ablation)
    several = "k heads" if ablation.heads_together is None else "KV groups"
    title = f"Accuracy with {several} {phrase_of(ablation.treatment)}: {subject}"
    return Grid(title, [units_of(ablation), *(_number(ablation, k) for k in ks)], rows, _note(rows))


def share_grid(ablation: Ablation) -> Grid:
    """A curve: one row for each way to choose heads, one column for each share of its stage's heads."""
    shares = sorted({row.share for row in ablation.rows})
    base = of_family(ablation.baseline, ALL)
    rows = [[["none"], *[[_percent(base.accuracy)]] * len(shares)]]
    for label, chosen in _groups(ablation):
        found = [[of_family(row.figures, ALL) for row in chosen if row.share == share] for share in shares]
        rows.append([[label], *(_brief(draws) for draws in found)])
    subject = _subject(ablation)
    header = [units_of(ablation), *(f"{100 * share:g}%" for share in shares)]
    title = f"Accuracy with a share of the {units_of(ablation)} {phrase_of(ablation.treatment)}: {subject}"
    return Grid(title, header, rows, _note(rows))


def published_grid(ablation: Ablation) -> Grid | None:
    """The dataset's own metric; None where that is accuracy."""
    if ablation.metric == "accuracy":
        return None
    names = PUBLISHED[ablation.metric]
    ks = sorted({row.k for row in ablation.rows})
    rows = [[["none"], *[_published(names, [ablation.baseline_published])] * len(ks)]]
    for label, chosen in _groups(ablation):
        rows.append([[label], *(_published(names, [row.published for row in chosen if row.k == k]) for k in ks)])
    title = f"{', '.join(names.values())}, as the dataset's authors count: {_subject(ablation)}"
    return Grid(title, [units_of(ablation), *(_number(ablation, k) for k in ks)], rows)


def family_grid(ablation: Ablation) -> Grid:
    """Accuracy per question family, one column each, with the largest number of heads treated."""
    k = max(row.k for row in ablation.rows)
    families = [base.family for base in ablation.baseline]
    rows = [[["none"], *([_percent(base.accuracy)] for base in ablation.baseline)]]
    for label, chosen in _groups(ablation):
        if draws := [row for row in chosen if row.k == k]:
            means = [_mean([of_family(row.figures, family).accuracy for row in draws]) for family in families]
            rows.append([[label], *([_percent(mean)] for mean in means)])
    treated = f"{k} heads" if ablation.heads_together is None else _number(ablation, k)
    title = f"By question family, {treated} {phrase_of(ablation.treatment)}"
    return Grid(title, [units_of(ablation), *families], rows)


def units_of(ablation: Ablation) -> str:
    """What was treated at once."""
    return "heads" if ablation.heads_together is None else "KV groups"


def untreated(ablation: Ablation) -> str:
    """What the whole model is called beside rows of treated heads."""
    return "no head" if ablation.heads_together is None else "no KV group"


def _number(ablation: Ablation, k: int) -> str:
    """A number of heads treated, in KV groups where whole groups were."""
    if ablation.heads_together is None:
        return f"k = {k}"
    groups = k // ablation.heads_together
    return f"{groups} KV group{'s' if groups > 1 else ''} ({k} heads)"


def drawn(grid: Grid) -> Table:
    """For the terminal."""
    table = FoldedTable(title=escape(grid.title), caption=escape(grid.note) or None)
    for index, name in enumerate(grid.header):
        table.add_column(name, justify="right" if index else "left")
    for index, row in enumerate(grid.rows):
        table.add_row(*("\n".join(cell) for cell in row), end_section=index == 0)
    return table


def markdown(grid: Grid) -> str:
    """For a README; the lines of a cell are joined by line breaks."""
    lines = [
        f"**{grid.title}**",
        "",
        _markdown_row(grid.header),
        _markdown_row(["---", *["---:"] * len(grid.header[1:])]),
    ]
    lines += [_markdown_row(["<br>".join(cell) for cell in row]) for row in grid.rows]
    lines += ["", grid.note] if grid.note else []
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _groups(ablation: Ablation) -> list[tuple[str, list[AblationRow]]]:
    """Rows by how heads were chosen, in order of appearance."""
    groups: dict[str, list[AblationRow]] = {}
    for row in ablation.rows:
        groups.setdefault(f"{row.select} {row.stage}", []).append(row)
    return list(groups.items())


def _cell(draws: list[ComparedFigures]) -> list[str]:
    if not draws:
        return [NONE]
    interval = _interval(_mean([one.difference_low for one in draws]), _mean([one.difference_high for one in draws]))
    accuracies = [one.accuracy for one in draws]
    cell = [_percent(_mean(accuracies)), f"{_points(_mean([one.difference for one in draws]))} {interval}"]
    cell.append(_p(_together(draws)))
    if len(draws) > 1:
        cell.append(f"{_percent(min(accuracies))} to {_percent(max(accuracies))} in {len(draws)} draws")
    return cell


def _together(draws: list[ComparedFigures]) -> float:
    """One p of all draws; see the head of this file."""
    return draws[0].p if len(draws) == 1 else min(2 * _mean([one.p for one in draws]), 1.0)


def _note(rows: list[list[list[str]]]) -> str:
    said = [line for row in rows[1:] for cell in row for line in cell]
    tests = sum(len(cell) > 1 for row in rows[1:] for cell in row[1:])
    note = f"n.s.: not significant, p at least {SIGNIFICANT}; p is not corrected for the {tests} cells."
    return note if any(line.endswith(NOT.strip()) for line in said) else ""


def _published(names: dict[str, str], draws: list[Published]) -> list[str]:
    """Means over the draws, a line for each figure; a figure that would divide by 0 has none."""
    cell = []
    for name in names:
        values = [value for one in draws if (value := one[ALL][name]) is not None]
        cell.append(_percent(_mean(values)) if values else NONE)
    return cell


def _subject(ablation: Ablation) -> str:
    ranked = "" if ablation.rank_by == "score" else f" (ranked by {ablation.rank_by.replace('_', ' ')})"
    return f"{ablation.model.name} on {ablation.dataset.name}, n = {ablation.samples}{ranked}"


def _brief(draws: list[ComparedFigures]) -> list[str]:
    if not draws:
        return [""]
    accuracies = [one.accuracy for one in draws]
    weak = [NOT.strip()] if _together(draws) >= SIGNIFICANT else []
    if len(draws) == 1:
        return [_percent(accuracies[0]), _interval(draws[0].low, draws[0].high), *weak]
    return [_percent(_mean(accuracies)), f"{_percent(min(accuracies))} to {_percent(max(accuracies))}", *weak]


def of_family(figures: Sequence[AnyFigures], family: str) -> AnyFigures:
    """Figures of one question family, or of `all`."""
    return next(one for one in figures if one.family == family)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", MINUS)


def _interval(low: float, high: float) -> str:
    return f"({100 * low:.1f} to {100 * high:.1f})".replace("-", MINUS)


def _p(p: float) -> str:
    words = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return words + NOT if p >= SIGNIFICANT else words
