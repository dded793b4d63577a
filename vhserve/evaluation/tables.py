"""Tables of an evaluation for the terminal: accuracy per family and arm, flips between arms.

Knows rich and the results. Computes nothing.
"""

from collections.abc import Sequence

from rich.table import Table

from vhserve.evaluation.results import Arm, Figures, Paired


def accuracy_table(arms: Sequence[Arm], paired: Sequence[Paired], title: str) -> Table:
    """One row per family: each arm's accuracy with its interval and, of two arms, the flips and the exact test."""
    table = Table(title=title)
    table.add_column("family")
    for arm in arms:
        table.add_column(f"{arm.name}\ncorrect", justify="right")
        table.add_column("accuracy (95%)", justify="right")
    troubled = any(one.off_list or one.errors for arm in arms for one in arm.figures)
    if troubled:
        table.add_column("off list /\nfailed", justify="right")
    if paired:
        table.add_column("difference (95%)", justify="right")
        table.add_column("flips\n(b, c)", justify="right")
        table.add_column("McNemar\np", justify="right")
    families = list(dict.fromkeys(one.family for arm in arms for one in arm.figures))
    families.sort(key=lambda family: family == "all")
    for family in families:
        cells = [family]
        found = [next((one for one in arm.figures if one.family == family), None) for arm in arms]
        for one in found:
            cells += [f"{one.correct}/{one.answered}" if one else "-", interval(one)]
        if troubled:
            cells.append(", ".join(f"{one.off_list}/{one.errors}" if one else "-" for one in found))
        if paired:
            cells += _paired_cells(next((one for one in paired if one.family == family), None))
        table.add_row(*cells, style="bold" if family == "all" else None)
    return table


def interval(one: Figures | None) -> str:
    """Accuracy and its interval in percent."""
    if one is None or one.accuracy is None or one.low is None or one.high is None:
        return "-"
    return f"{one.accuracy:.1%} ({one.low:.1%} to {one.high:.1%})"


def difference(one: Paired) -> str:
    """Difference of two arms and its interval in percentage points."""
    if one.difference is None or one.low is None or one.high is None:
        return "-"
    return f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


def _paired_cells(one: Paired | None) -> list[str]:
    if one is None or one.p is None:
        return ["-", "-", "-"]
    return [difference(one), f"{one.only_first}, {one.only_second}", f"{one.p:.3g}"]
