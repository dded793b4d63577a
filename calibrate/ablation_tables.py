"""Tables of an ablation, for the terminal and as Markdown.

Owns their cells: accuracy, difference from the baseline with its 95% interval, McNemar's p; random draws as their mean
and range. Does not know how anything was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.table import Table

from calibrate.ablation_results import Ablation, Compared, Figures, Row
from calibrate.accuracy import ALL

MINUS = "\N{MINUS SIGN}"

DONE = {
    "removed": "removed",
    "mean": "replaced by their mean",
    "uniform": "attending uniformly",
    "text_only": "attending to text only",
}

Kind = TypeVar("Kind", bound=Figures)


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn; a cell is one or more lines."""

    title: str
    header: list[str]
    rows: list[list[list[str]]]


def stage_grid(ablation: Ablation) -> Grid:
    """The paper's table: one row for each way to choose heads, one column for each number of heads."""
    ks = sorted({row.k for row in ablation.rows})
    base = of_family(ablation.baseline, ALL)
    rows = [[["none"], *[[_percent(base.accuracy), _interval(base.low, base.high)]] * len(ks)]]
    for label, chosen in _groups(ablation):
        cells = [_cell([of_family(row.figures, ALL) for row in chosen if row.k == k]) for k in ks]
        rows.append([[label], *cells])
    subject = _subject(ablation)
    return Grid(
        f"Accuracy with k heads {DONE[ablation.treatment]}: {subject}", ["heads", *(f"k = {k}" for k in ks)], rows
    )


def share_grid(ablation: Ablation) -> Grid:
    """A curve: one row for each way to choose heads, one column for each share of its stage's heads."""
    shares = sorted({row.share for row in ablation.rows})
    base = of_family(ablation.baseline, ALL)
    rows = [[["none"], *[[_percent(base.accuracy)]] * len(shares)]]
    for label, chosen in _groups(ablation):
        found = [[of_family(row.figures, ALL) for row in chosen if row.share == share] for share in shares]
        rows.append([[label], *(_brief(draws) for draws in found)])
    subject = _subject(ablation)
    header = ["heads", *(f"{100 * share:g}%" for share in shares)]
    return Grid(f"Accuracy with a share of the heads {DONE[ablation.treatment]}: {subject}", header, rows)


def family_grid(ablation: Ablation) -> Grid:
    """Accuracy per question family, one row each, with the largest number of heads treated."""
    k = max(row.k for row in ablation.rows)
    groups = [(label, [row for row in chosen if row.k == k]) for label, chosen in _groups(ablation)]
    rows = []
    for base in ablation.baseline:
        means = [_mean([of_family(row.figures, base.family).accuracy for row in draws]) for _, draws in groups]
        rows.append([[base.family], *([_percent(one)] for one in (base.accuracy, *means))])
    header = ["question family", "none", *(label for label, _ in groups)]
    return Grid(f"By question family, {k} heads {DONE[ablation.treatment]}", header, rows)


def drawn(grid: Grid) -> Table:
    """For the terminal."""
    table = Table(title=grid.title, title_justify="left")
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
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _groups(ablation: Ablation) -> list[tuple[str, list[Row]]]:
    """Rows by how heads were chosen, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in ablation.rows:
        groups.setdefault(f"{row.select} {row.stage}", []).append(row)
    return list(groups.items())


def _cell(draws: list[Compared]) -> list[str]:
    if len(draws) == 1:
        one = draws[0]
        change = f"{_points(one.difference)} {_interval(one.difference_low, one.difference_high)}"
        return [_percent(one.accuracy), change, _p(one.p)]
    accuracies = [one.accuracy for one in draws]
    change = f"{_points(_mean([one.difference for one in draws]))} on average"
    spread = f"{_percent(min(accuracies))} to {_percent(max(accuracies))}"
    return [_percent(_mean(accuracies)), change, f"{spread} in {len(draws)} draws"]


def _subject(ablation: Ablation) -> str:
    ranked = "" if ablation.rank_by == "score" else f" (ranked by {ablation.rank_by.replace('_', ' ')})"
    return f"{ablation.model.name} on {ablation.dataset.name}, n = {ablation.samples}{ranked}"


def _brief(draws: list[Compared]) -> list[str]:
    if not draws:
        return [""]
    accuracies = [one.accuracy for one in draws]
    if len(draws) == 1:
        return [_percent(accuracies[0]), _interval(draws[0].low, draws[0].high)]
    return [_percent(_mean(accuracies)), f"{_percent(min(accuracies))} to {_percent(max(accuracies))}"]


def of_family(figures: Sequence[Kind], family: str) -> Kind:
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
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
