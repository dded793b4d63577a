"""Pairing: two arms on the same samples, sample by sample.

Owns which samples may be paired and what the pairs say. Knows no server.
"""

import math
from collections.abc import Sequence

from calibrate.statistics import mcnemar_exact, wilson

from vhserve.evaluation.errors import ResultsMismatch
from vhserve.evaluation.results import Answer, Arm, Paired
from vhserve.evaluation.scoring import ALL


def pair(first: Arm, second: Arm) -> list[Paired]:
    """Compare two arms per family (families in the first arm's order, `all` last).

    Samples whose request failed in either arm are left out of the comparison.

    Raises
    ------
    ResultsMismatch
        When the arms were not asked the same questions.
    """
    others = {answer.id: answer for answer in second.answers}
    if len(others) != len(second.answers) or len(others) != len(first.answers):
        raise _mismatch(f"{first.name} has {len(first.answers)} samples and {second.name} {len(second.answers)}")
    pairs: dict[str, list[tuple[Answer, Answer]]] = {}
    for one in first.answers:
        other = others.get(one.id)
        if other is None:
            raise _mismatch(f"{second.name} lacks sample {one.id}")
        if (one.answer, one.family) != (other.answer, other.family):
            raise _mismatch(f"sample {one.id} has another question in {second.name}")
        pairs.setdefault(one.family, []).append((one, other))
    everything = [both for group in pairs.values() for both in group]
    return [_compare(family, group, first.name, second.name) for family, group in [*pairs.items(), (ALL, everything)]]


def _mismatch(wrong: str) -> ResultsMismatch:
    return ResultsMismatch(
        f"results of other samples: {wrong}",
        expected="both arms on the same samples",
        fix="evaluate both with the same --dataset, --samples, --families and --seed",
    )


def _compare(family: str, pairs: Sequence[tuple[Answer, Answer]], first: str, second: str) -> Paired:
    right = [
        (one.outcome == "correct", other.outcome == "correct")
        for one, other in pairs
        if "error" not in (one.outcome, other.outcome)
    ]
    both, only_first = right.count((True, True)), right.count((True, False))
    only_second, neither = right.count((False, True)), right.count((False, False))
    low, high = difference_interval(both, only_first, only_second, neither) if right else (None, None)
    return Paired(
        family=family,
        first=first,
        second=second,
        samples=len(right),
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=neither,
        difference=(only_second - only_first) / len(right) if right else None,
        low=low,
        high=high,
        p=mcnemar_exact(only_first, only_second) if right else None,
    )


def difference_interval(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """95% interval of a difference between paired proportions, second minus first.

    Newcombe's score interval (Statistics in Medicine 17, 1998, 2635-2650, method 10): it combines the Wilson limits
    of the two proportions with their correlation, so it stays sensible where there are few flips or none.

    Parameters
    ----------
    both, only_first, only_second, neither
        Counts of pairs: both right, one right, none right; at least one pair.
    """
    n = both + only_first + only_second + neither
    p1, p2 = (both + only_first) / n, (both + only_second) / n
    (l1, u1), (l2, u2) = wilson(both + only_first, n), wilson(both + only_second, n)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = 0.0
    if margins:
        cross = both * neither - only_first * only_second
        # Continuity correction of the positive side only, as in the paper.
        phi = (max(cross - n / 2, 0) if cross > 0 else cross) / math.sqrt(margins)
    down = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    up = (u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2
    theta = p2 - p1
    return max(-1.0, theta - math.sqrt(max(0.0, down))), min(1.0, theta + math.sqrt(max(0.0, up)))
