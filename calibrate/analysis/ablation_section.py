"""The ablation table in the paper's form (5.1, supplement 8): a row for each choice of heads, a column for each family.

Owns the layout; the figures are `calibrate.ablation.run`'s.
"""

from collections.abc import Sequence

from calibrate.ablation.figure import accuracy_curve
from calibrate.ablation.results import Ablation, AblationRow, ComparedFigures
from calibrate.ablation.tables import SIGNIFICANT, Grid, of_family, units_of, untreated
from calibrate.ablation.treatments import phrase_of
from calibrate.analysis.section import CsvRow, Section
from calibrate.analysis.words import number, percent
from calibrate.drawing import Drawing


def ablation_section(ablation: Ablation) -> Section:
    """Loss of accuracy of every row and family, with intervals and paired tests."""
    never = ablation.never_right()
    heads = len({(row.select, row.stage, row.k) for row in ablation.rows})
    units = units_of(ablation)
    return Section(
        name="ablation",
        title="What heads are worth: ablation",
        look_for=f"{units[0].upper()}{units[1:]} are {phrase_of(ablation.treatment)}, chosen by "
        f"{ablation.rank_by.replace('_', ' ')}. Each cell of the table is what that costs in accuracy against the "
        "whole model on the same samples, in percentage points, with its 95% interval (Newcombe's method 10); `n.s.`: "
        "not significant, McNemar's exact p is 0.05 or more. Of random draws, mean and range. In the paper the top "
        "heads of early layers cost most, those of late layers little, and random ones least. Many cells are tested: "
        "one in twenty is significant by chance alone.",
        figures=[
            Drawing(
                accuracy_curve(ablation),
                f"Accuracy over the share of {units} treated, a panel for each stage",
                f"{ablation.samples:,} samples of all families; grey is the whole model.",
            )
        ],
        statements=[*([] if never is None else [f"{never}."]), *([] if heads else ["Nothing was ablated."])],
        rows=_rows(ablation),
        table=_table(ablation),
    )


def groups(ablation: Ablation) -> dict[str, list[AblationRow]]:
    """Rows by what the paper calls their category, with the number of heads or KV groups, random draws together."""
    found: dict[str, list[AblationRow]] = {}
    for row in ablation.rows:
        number = row.k // (ablation.heads_together or 1)
        found.setdefault(f"{row.stage} {row.select} {number}", []).append(row)
    return found


def _table(ablation: Ablation) -> Grid:
    families = [one.family for one in ablation.baseline]
    rows = [[[untreated(ablation)], *([percent(one.accuracy)] for one in ablation.baseline)]]
    for name, draws in groups(ablation).items():
        rows.append([[name], *(_cell([of_family(row.figures, family) for row in draws]) for family in families)])
    return Grid(
        f"Accuracy of the whole model, and what treating {units_of(ablation)} costs in points "
        f"(n = {ablation.samples:,})",
        [units_of(ablation), *families],
        rows,
    )


def _cell(draws: Sequence[ComparedFigures]) -> list[str]:
    if len(draws) == 1:
        one = draws[0]
        interval = f"({number(one.difference_low, 1, 100)} to {number(one.difference_high, 1, 100)})"
        return [number(one.difference, 1, 100), interval, *(["n.s."] if one.p >= SIGNIFICANT else [])]
    changes = [one.difference for one in draws]
    few = sum(one.p >= SIGNIFICANT for one in draws)
    ends = f"{number(min(changes), 1, 100)} to {number(max(changes), 1, 100)}"
    return [number(sum(changes) / len(changes), 1, 100), ends, *([f"{few} of {len(draws)} n.s."] if few else [])]


def _rows(ablation: Ablation) -> list[CsvRow]:
    rows: list[CsvRow] = [
        {"category": untreated(ablation), "family": one.family, "samples": one.samples, "accuracy": one.accuracy}
        for one in ablation.baseline
    ]
    for name, draws in groups(ablation).items():
        for row in draws:
            for one in row.figures:
                rows.append(
                    {
                        "category": name,
                        "family": one.family,
                        "samples": one.samples,
                        "accuracy": one.accuracy,
                        "stage": row.stage,
                        "select": row.select,
                        "k": row.k,
                        "seed": row.seed,
                        "difference": one.difference,
                        "low": one.difference_low,
                        "high": one.difference_high,
                        "p": one.p,
                        "significant": one.p < SIGNIFICANT,
                    }
                )
    return rows
