"""Scoring: from a reply to one of four outcomes, and from outcomes to figures per family.

Owns the rule by which a reply counts as right. Knows no server and no file.
"""

from collections.abc import Iterable, Sequence

from calibrate.datasets import metrics
from calibrate.datasets.answers import PUNCTUATION, single_words
from calibrate.datasets.families import grouped
from calibrate.datasets.metrics import Metric
from calibrate.stats.accuracy import Accuracy
from vhserve.evaluation.results import AccuracyFigures, Answer, ReplyOutcome


def score(reply: str, answer: str, options: Sequence[str]) -> ReplyOutcome:
    """Compare a reply with the right answer; case and punctuation around it don't count.

    Where every option is a single word, the first word of the reply is compared, so that "A. a red circle" chooses A
    and "3 circles" means 3; else the whole reply is.

    Parameters
    ----------
    reply
        What the model wrote.
    answer
        The right answer.
    options
        Every answer that the question allows; empty when anything may be answered.

    Returns
    -------
    `correct`; `wrong` for another of the options; `off_list` for a reply that is none of them (it counts as not
    correct, but is reported apart: a broken model looks different from one that errs).
    """
    single = single_words((answer, *options))
    normalised = _plain(reply, single)
    if normalised == _plain(answer, single):
        return "correct"
    if not options or normalised in {_plain(option, single) for option in options}:
        return "wrong"
    return "off_list"


def _plain(text: str, first_word: bool) -> str:
    if first_word:
        text = next(iter(text.split()), "")
    return " ".join(text.split()).strip(PUNCTUATION).casefold()


def figures(answers: Iterable[Answer]) -> list[AccuracyFigures]:
    """Count outcomes per family, families in order of appearance, `all` last.

    Failed requests are counted beside the accuracy, not in it: accuracy is `correct / answered` with its 95% Wilson
    interval, and has no value where nothing was answered.
    """
    return [_count(family, group) for family, group in grouped(answers, lambda one: one.family).items()]


def published(metric: Metric, answers: Iterable[Answer]) -> dict[str, dict[str, float | None]]:
    """Figures of a dataset's own metric per family, `all` last, failed requests left out; none where it is accuracy."""
    if metric == "accuracy":
        return {}
    return metrics.count(
        metric,
        [
            metrics.Counted(one.family, one.answer, one.reply, one.outcome == "correct", one.group)
            for one in answers
            if one.reply is not None
        ],
    )


def _count(family: str, answers: Sequence[Answer]) -> AccuracyFigures:
    outcomes = [answer.outcome for answer in answers]
    errors = outcomes.count("error")
    own = Accuracy(outcomes.count("correct"), len(outcomes) - errors)
    low, high = own.interval if own.samples else (None, None)
    return AccuracyFigures(
        family=family,
        samples=len(outcomes),
        answered=own.samples,
        correct=own.correct,
        off_list=outcomes.count("off_list"),
        errors=errors,
        accuracy=own.share if own.samples else None,
        low=low,
        high=high,
    )
