"""Pairing: two arms on the same samples, sample by sample.

Owns which samples may be paired. The statistics are in `calibrate.stats`. Knows no server.
"""

from collections.abc import Sequence

from calibrate.datasets.families import grouped
from calibrate.stats.paired_tests import PairedCounts
from vhserve.evaluation.errors import ResultsMismatch
from vhserve.evaluation.results import Answer, Arm, Paired


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
    pairs: list[tuple[Answer, Answer]] = []
    for one in first.answers:
        other = others.get(one.id)
        if other is None:
            raise _mismatch(f"{second.name} lacks sample {one.id}")
        if (one.answer, one.family) != (other.answer, other.family):
            raise _mismatch(f"sample {one.id} has another question in {second.name}")
        pairs.append((one, other))
    families = grouped(pairs, lambda both: both[0].family)
    return [_compare(family, group, first.name, second.name) for family, group in families.items()]


def _mismatch(wrong: str) -> ResultsMismatch:
    return ResultsMismatch(
        f"results of other samples: {wrong}",
        expected="both arms on the same samples",
        fix="evaluate both with the same --dataset, --samples, --families and --seed",
    )


def _compare(family: str, answers: Sequence[tuple[Answer, Answer]], first: str, second: str) -> Paired:
    right = [
        (one.outcome == "correct", other.outcome == "correct")
        for one, other in answers
        if "error" not in (one.outcome, other.outcome)
    ]
    pairs = PairedCounts.of([one for one, _ in right], [other for _, other in right])
    low, high = pairs.interval if right else (None, None)
    return Paired(
        family=family,
        first=first,
        second=second,
        samples=len(right),
        both=pairs.both,
        only_first=pairs.only_first,
        only_second=pairs.only_second,
        neither=pairs.neither,
        difference=pairs.difference if right else None,
        low=low,
        high=high,
        p=pairs.p if right else None,
    )
