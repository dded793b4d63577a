"""Budgets of query heads: what the user's text means, and whether the units and the stage allow it.

Does not know scores.
"""

import re
from collections.abc import Iterable

from profiles.errors import BudgetTooLarge, ProtectedHeadTreated, WrongValue
from profiles.geometry import ModelGeometry, stage_layers
from profiles.names import STAGES, Granularity, StageOrAll
from profiles.planning.units import unit_size


def parse_budget(text: str, option: str) -> tuple[float, bool]:
    """The number in ``12`` or ``25%``, and whether it is a percentage.

    Raises
    ------
    WrongValue
        It is neither a number nor a percentage up to 100.
    """
    match = re.fullmatch(r"([0-9]{1,9}|[0-9]{1,3}(?:\.[0-9]{1,6})?(%))", text.strip())
    number = float(match[1].rstrip("%")) if match else -1.0
    if match is None or (match[2] and number > 100):
        flag = _flag(option)
        fix = f"give {flag} 8 or {flag} 10%"
        expected = "a number of heads or a percentage up to 100%"
        raise WrongValue(f"{flag} is {text!r:.40}", expected=expected, fix=fix)
    return number, match[2] is not None


def heads_of(text: str, option: str, geometry: ModelGeometry, stage: StageOrAll, granularity: Granularity) -> int:
    """Query heads that a budget means; a percentage is of the stage's heads, rounded down to a whole unit.

    Raises
    ------
    WrongValue
    """
    number, is_percentage = parse_budget(text, option)
    if not is_percentage:
        return int(number)
    size = unit_size(geometry, granularity)
    heads = len(stage_layers(stage, geometry.layers)) * geometry.query_heads
    budget = int(round(number * heads / 100, 9)) // size * size
    if number and not budget:
        unit = f"{size} heads, which are treated together" if size > 1 else "1 head"
        raise WrongValue(
            f"{_flag(option)} is {text.strip()} of {heads} heads, less than {unit}",
            expected=f"at least {100 * size / heads:.3g}%, or a number of heads",
            fix=f"give {_flag(option)} {size}",
        )
    return budget


def check_budgets(
    texts: Iterable[str],
    option: str,
    geometry: ModelGeometry,
    granularity: Granularity,
    stages: Iterable[StageOrAll] = STAGES,
) -> None:
    """Refuse budgets that some of these stages of a model cannot hold, or that are no budgets.

    Raises
    ------
    BudgetTooLarge, WrongValue
    """
    for text in texts:
        for stage in stages:
            budget = heads_of(text, option, geometry, stage, granularity)
            check_multiple(budget, option, geometry, granularity)
            total = len(stage_layers(stage, geometry.layers)) * geometry.query_heads
            if budget > total:
                raise BudgetTooLarge(
                    f"{budget} heads are to be treated, but {_where(stage)} has {total}",
                    expected=f"at most {total}",
                    fix=f"give smaller numbers with {_flag(option)}",
                )


def check_multiple(budget: int, option: str, geometry: ModelGeometry, granularity: Granularity) -> None:
    """Refuse a budget that is negative or splits a unit, and say which are nearest.

    Raises
    ------
    WrongValue
    """
    flag = _flag(option)
    if budget < 0:
        raise WrongValue(f"{flag} is {budget}", expected="0 or more heads", fix=f"give {flag} 8")
    size = unit_size(geometry, granularity)
    if budget % size:
        below = budget // size * size
        raise WrongValue(
            f"{flag} is {budget}, but granularity {granularity} treats {size} query heads together",
            expected=f"a multiple of {size}",
            fix=f"give {f'{flag} {below} or ' if below or len(option) > 1 else ''}{flag} {below + size}",
        )


def check_budget(budget: int, stage: StageOrAll, total: int, free: int, protect_top: float) -> None:
    """Refuse more heads than the stage has, or than may be treated in it.

    Parameters
    ----------
    total, free
        Query heads of the stage, and those of its units without a protected head.

    Raises
    ------
    BudgetTooLarge
    """
    where = _where(stage)
    if budget > total:
        wrong = f"{budget} heads are to be treated, but {where} has {total}"
        raise BudgetTooLarge(wrong, expected=f"at most {free}", fix="lower the budget, or choose another --stage")
    if budget > free:
        wrong = f"{budget} heads are to be treated, but only {free} of the {total} in {where} are unprotected"
        fix = f"lower the budget or --protect-top (now {protect_top:g})"
        raise BudgetTooLarge(wrong, expected=f"at most {free}", fix=fix)


def _where(stage: StageOrAll) -> str:
    return "the model" if stage == "all" else f"stage {stage}"


def _flag(option: str) -> str:
    """An option's flag on the command line."""
    return f"{'-' if len(option) == 1 else '--'}{option}"


def check_exit_layer(
    exit_layer: int | None, stage: StageOrAll, geometry: ModelGeometry, protected: set[tuple[int, int]], percent: float
) -> list[tuple[int, int]]:
    """Heads ``(layer, head)`` of the layers from an exit layer on; none without one.

    Parameters
    ----------
    stage
        Layers that heads may be chosen from.
    protected, percent
        Heads that are never treated, and the percentage of all heads that they were chosen as.

    Raises
    ------
    WrongValue
        There is no such layer, or it is none of the stage's.
    ProtectedHeadTreated
        A head of these layers is protected.
    """
    if exit_layer is None:
        return []
    layers = stage_layers(stage, geometry.layers)
    behind = range(exit_layer, geometry.layers)
    if not behind or exit_layer < 0:
        raise WrongValue(
            f"--exit-layer is {exit_layer}, and the model has {geometry.layers} layers",
            expected=f"0 to {geometry.layers - 1}",
            fix=f"give --exit-layer {2 * geometry.layers // 3}",
        )
    if not set(behind) <= set(layers):
        raise WrongValue(
            f"--exit-layer is {exit_layer}, and --stage {stage} is of layers {layers[0]} to {layers[-1]}",
            expected="a stage with all layers from the exit on",
            fix="give --stage all",
        )
    if refused := sorted(head for head in protected if head[0] in behind):
        layer, head = refused[-1]
        group = geometry.group(head // geometry.group_size)
        whole = geometry.group_size > 1 and all((layer, one) in protected for one in group)
        named = geometry.group_name(head // geometry.group_size) if whole else f"head {head}"
        fix = "give --protect-top 0"
        if layer + 1 < geometry.layers:
            fix += f", or --exit-layer {layer + 1}"
        raise ProtectedHeadTreated(
            f"--exit-layer {exit_layer} treats layer {layer} {named}, which --protect-top {percent:g} protects",
            expected="no protected head behind the exit",
            fix=fix,
        )
    return [(layer, head) for layer in behind for head in range(geometry.query_heads)]
