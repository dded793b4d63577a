"""Tables of an evaluation for the terminal: accuracy per family and arm, flips between arms.

Knows rich and the results. Computes nothing.
"""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from calibrate.datasets.families import ALL
from calibrate.terminal_tables import FoldedTable
from vhserve.evaluation.results import AccuracyFigures, Arm, Paired


def accuracy_table(arms: Sequence[Arm], title: str) -> Table:
    """One row per family: each arm's accuracy with its interval and, where there are any, odd replies and failures."""
    table = FoldedTable(title=title)
    table.add_column("family", no_wrap=True)
    table.add_column("asked", justify="right")
    for arm in arms:
        table.add_column(f"{escape(arm.name)}\n\\[95%]", justify="right")
    troubled = any(one.off_list or one.errors for arm in arms for one in arm.figures)
    if troubled:
        table.add_column("off list\n/ failed", justify="right")
    families = list(dict.fromkeys(one.family for arm in arms for one in arm.figures))
    families.sort(key=lambda family: family == ALL)
    for family in families:
        found = [one for arm in arms for one in arm.figures if one.family == family]
        cells = [escape(family), str(max(one.samples for one in found)), *(escape(interval(one)) for one in found)]
        if troubled:
            cells.append(", ".join(f"{one.off_list}/{one.errors}" for one in found))
        table.add_row(*cells, style="bold" if family == ALL else None)
    return table


def published_table(arms: Sequence[Arm]) -> Table | None:
    """One row per family and arm: the figures of the dataset's own metric; None where that is accuracy."""
    arms = [arm for arm in arms if arm.published]
    if not arms:
        return None
    table = FoldedTable(keys=2, title="As the dataset's authors count")
    table.add_column("family", no_wrap=True)
    table.add_column("arm")
    names = list(next(iter(arms[0].published.values())))
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for family in dict.fromkeys(family for arm in arms for family in arm.published):
        for arm in arms:
            found = arm.published.get(family, {})
            values = (found.get(name) for name in names)
            cells = ("-" if value is None else f"{value:.1%}" for value in values)
            table.add_row(escape(family), escape(arm.name), *cells, style="bold" if family == ALL else None)
    return table


def paired_table(paired: Sequence[Paired]) -> Table:
    """One row per family: difference of the second arm to the first, flips, and the exact test."""
    first, second = paired[0].first, paired[0].second
    caption = f"b: samples that only {first} got right; c: only {second}"
    table = FoldedTable(title=f"{second} against {first}, sample by sample", caption=caption)
    table.add_column("family", no_wrap=True)
    table.add_column("difference,\npoints \\[95%]", justify="right")
    table.add_column("b", justify="right")
    table.add_column("c", justify="right")
    table.add_column("McNemar's\nexact p", justify="right")
    for one in paired:
        p = "-" if one.p is None else f"{one.p:.3g}"
        cells = (escape(one.family), escape(difference(one)), str(one.only_first), str(one.only_second), p)
        table.add_row(*cells, style="bold" if one.family == ALL else None)
    return table


def interval(one: AccuracyFigures | None) -> str:
    """Accuracy in percent, and its interval."""
    if one is None or one.accuracy is None or one.low is None or one.high is None:
        return "-"
    return f"{one.accuracy:.1%} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def difference(one: Paired | None) -> str:
    """Difference of two arms in percentage points, and its interval."""
    if one is None or one.difference is None or one.low is None or one.high is None:
        return "-"
    return f"{100 * one.difference:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
