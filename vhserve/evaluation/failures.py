"""What is said, in a line each, of arms that did not answer: of failed requests, and of servers that are never right.

Owns the words, and when an arm has answered nothing. Asks and counts nothing.
"""

from collections.abc import Sequence

from calibrate.datasets.families import ALL
from calibrate.stats.nothing_right import nothing_right
from vhserve.evaluation.results import Arm


def silent(arms: Sequence[Arm]) -> list[str]:
    """Names of the arms that answered nothing."""
    return [arm.name for arm in arms if not arm.answered]


def failed_requests(arms: Sequence[Arm]) -> str | None:
    """How many requests failed, the first one's error, and which arms answered nothing; `None` where none failed."""
    failed = [answer for arm in arms for answer in arm.answers if answer.error]
    if not failed:
        return None
    who = silent(arms)
    what = f"{' and '.join(who)} answered nothing: " if who else ""
    requests = "1 request failed and is" if len(failed) == 1 else f"{len(failed)} requests failed and are"
    return f"{what}{requests} in no accuracy; the first, {failed[0].id}: {failed[0].error}"


def never_right(arm: Arm) -> str | None:
    """That an arm answered, but nothing right, in all or in some families; `None` where it did."""
    counted = {one.family: (one.correct, one.answered) for one in arm.figures if one.answered}
    whole = counted.pop(ALL, None)
    return None if whole is None else nothing_right(arm.name, whole, counted)
