"""What the model answers: accuracy per family, and whether its answers are among the options at all.

Owns this section.
"""

from calibrate.ablation.tables import Grid
from calibrate.analysis.section import CsvRow, Section
from calibrate.analysis.tallies import Measured
from calibrate.analysis.words import counted, percent
from calibrate.datasets.families import ALL
from calibrate.stats.intervals import wilson
from calibrate.stats.nothing_right import nothing_right


def never_among(measured: Measured) -> list[str]:
    """Families of which no sample was answered by one of its options: right and wrong say nothing there."""
    return [family for family in measured.families if not measured.among(family).any()]


def answers_count(measured: Measured) -> bool:
    """Whether any family's answers are among the options, so that accuracy means something."""
    return len(never_among(measured)) < len(measured.families)


def never_right(measured: Measured) -> str | None:
    """The line for a model that answers nothing right, of all samples or of a family; `None` where it does."""
    right = {family: measured.right(family) for family in (None, *measured.families)}
    counts = {family: (int(own.sum()), len(own)) for family, own in right.items()}
    return nothing_right("the model", counts[None], {name: own for name, own in counts.items() if name is not None})


def accuracy_section(measured: Measured) -> Section:
    """Accuracy of every family with its interval, and the share of answers that are options."""
    never = never_among(measured)
    rows: list[CsvRow] = []
    for family in measured.groups:
        right, among = measured.right(family), measured.among(family)
        low, high = wilson(int(right.sum()), len(right))
        counts = family not in never and answers_count(measured)
        rows.append(
            {
                "family": family or ALL,
                "samples": len(right),
                "right": int(right.sum()),
                "accuracy": float(right.mean()) if counts else None,
                "low": low if counts else None,
                "high": high if counts else None,
                "among_options": float(among.mean()),
            }
        )
    statements = [
        f"{family}: none of {counted(int(measured.own(family).sum()), 'answer')} is one of the question's options. "
        "That is no accuracy of 0%: the model does not answer in the form asked for (look at its chat template and at "
        "what it writes), so nothing that needs right answers is counted."
        for family in never
    ]
    # Where no answer is an option, that has been said.
    if answers_count(measured) and (line := never_right(measured)) is not None:
        statements.append(f"{line}.")
    return Section(
        name="accuracy",
        title="Answers",
        look_for="What the model gets right, with 95% Wilson intervals, judged by its likeliest first token. `Among "
        "the options` is the share of answers that are one of those that the question allows: where it is low, the "
        "model did not answer in the form asked for, rather than wrongly.",
        statements=statements,
        rows=rows,
        table=Grid(
            "Accuracy",
            ["family", "samples", "accuracy", "95% interval", "among the options"],
            [[[cell] for cell in _cells(row)] for row in rows],
        ),
    )


def _cells(row: CsvRow) -> list[str]:
    accuracy, low, high = (row[name] for name in ("accuracy", "low", "high"))
    known = isinstance(accuracy, float) and isinstance(low, float) and isinstance(high, float)
    shown = [percent(accuracy), f"{percent(low)} to {percent(high)}"] if known else ["not counted", ""]  # type: ignore[arg-type]
    return [str(row["family"]), f"{row['samples']:,}", *shown, percent(float(row["among_options"] or 0))]
