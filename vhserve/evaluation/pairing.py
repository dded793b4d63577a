"""Pairing: two arms on the same samples, sample by sample.

Owns which samples may be paired and what the pairs say. Knows no server.
"""

from collections.abc import Sequence

from calibrate.stats.intervals import difference_interval
from calibrate.stats.paired_tests import mcnemar_exact
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
