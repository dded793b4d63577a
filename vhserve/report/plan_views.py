"""Pruning plans in the terminal: what becomes of each head as a map, how it was chosen, and what was measured with it.

Owns marks and words. Does not read files, know flags, or compute what a plan saves.
"""

from typing import Final

from rich.markup import escape
from rich.text import Text

from calibrate.datasets.families import ALL
from calibrate.stats.nothing_right import nothing_right
from calibrate.terminal_tables import FoldedTable
from profiles.geometry import stage_layers, stage_of
from profiles.pruning_plan import PruningPlan
from profiles.treatments import FULL, TREATMENTS

_MARKS: Final = {
    "full": "#",
    "evict:2": "b",
    "evict:4": "d",
    "evict:8": "h",
    "evict": "e",
    "thinned:2": "2",
    "thinned:4": "4",
    "thinned:8": "8",
    "text_only": "t",
    "removed": ".",
}
"""What stands for a treatment; others have their first letter."""
_PROTECTED: Final = "@"


def plan_map(plan: PruningPlan) -> Text:
    """A row for each layer, a mark for each query head, and how many heads of the layer are treated.

    Of a plan by KV groups, a mark for each group, and how many groups.
    """
    protected, size = set(plan.selection.protected), plan.heads_together
    unit = "head" if size == 1 else f"KV group ({size} query heads)"
    text = Text(f"what becomes of each {unit}, from left to right\n")
    for layer, row in enumerate(plan.treatments):
        stage = stage_of(layer, len(plan.treatments))
        first = layer == stage_layers(stage, len(plan.treatments))[0]
        text.append(f"{stage if first else '':>6} {layer:3d} ")
        for head, name in list(enumerate(row))[::size]:
            text.append(_PROTECTED if (layer, head) in protected else _mark(name))
        counts = (
            f"{row.count(one.name) // size} {one.label}"
            for one in TREATMENTS.values()
            if one.name != FULL.name and one.name in row
        )
        text.append(f"  {', '.join(counts)}".rstrip() + "\n")
    there = [one for one in TREATMENTS.values() if any(one.name in row for row in plan.treatments)]
    legend = [f"{_mark(one.name)} {one.label}" for one in there]
    text.append(", ".join([*legend, *([f"{_PROTECTED} full and protected"] if protected else [])]) + "\n")
    return text


def _mark(treatment: str) -> str:
    return _MARKS.get(treatment, treatment[0])


def chosen_by(plan: PruningPlan) -> str:
    """How the heads were chosen, in one sentence."""
    selection = plan.selection
    if selection.method == "manual":
        return "Heads named one by one."
    where = "all layers" if selection.stage == "all" else f"{selection.stage} layers"
    ranked = selection.rank_by.replace("_", " ")
    order = {"bottom": f"lowest {ranked} first", "top": f"highest {ranked} first", "random": "at random"}
    seed = "" if selection.seed is None else f", seed {selection.seed}"
    size = plan.heads_together
    heads = "heads" if size == 1 else "KV groups"
    kept = f"; the {selection.protect_top:g}% of all {heads} with the highest {ranked} are protected"
    together = "" if size == 1 else f"; the {size} query heads of a KV group are treated together"
    if selection.exit_layer is not None:
        together += f"; those from layer {selection.exit_layer} on, that are not removed, are text-only"
    return (
        f"Chosen from {where}, {order[selection.method]}{seed}{kept if selection.protect_top else ''}{together}; "
        f"a removed head puts out {'zero' if plan.compensation.method == 'none' else 'its mean output'}."
    )


def measured_nothing(plan: PruningPlan) -> str | None:
    """The line for a plan that was measured on samples which its whole model never answers right, else None."""
    lines = (
        nothing_right(f"{plan.model.name} as it is, on {one.dataset},", (one.correct, one.samples))
        for one in plan.measured
        if one.family == ALL and one.arm == "baseline"
    )
    return next((line for line in lines if line is not None), None)


def measured_table(plan: PruningPlan) -> FoldedTable | None:
    """Accuracies that were measured with the plan and beside it; None where none was."""
    if not plan.measured:
        return None
    table = FoldedTable(keys=2, title="Measured accuracy")
    for name in ("dataset", "family"):
        table.add_column(name)
    table.add_column("arm")
    for name in ("samples", "correct", "accuracy \\[95%]"):
        table.add_column(name, justify="right")
    for one in plan.measured:
        interval = f"{one.accuracy:.1%} [{100 * one.low:.1f}, {100 * one.high:.1f}]"
        cells = (one.dataset, one.family, one.arm, f"{one.samples:,}", f"{one.correct:,}", interval)
        table.add_row(*map(escape, cells), style="bold" if one.family == "all" else None)
    return table
