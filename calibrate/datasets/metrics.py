"""How published datasets count answers: accuracy, POPE's yes-or-no figures, MMBench's circular evaluation.

Owns the counting, from what was asked and said to figures per question family. Knows no dataset, model or server, and
no interval: those are in `calibrate.stats.intervals`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from calibrate.datasets.families import grouped

Metric = Literal["accuracy", "yes_no", "circular"]


@dataclass(frozen=True)
class Counted:
    """One answered sample.

    Attributes
    ----------
    family, answer, group
        As in `Sample`.
    said
        What the model wrote, or the option that it chose.
    right
        Whether that counts as the answer.
    """

    family: str
    answer: str
    said: str
    right: bool
    group: str | None = None


def accuracy(answered: Sequence[Counted]) -> dict[str, float | None]:
    """Share of right answers, 0 to 1; `None` where nothing was answered."""
    return {"accuracy": _share(sum(one.right for one in answered), len(answered))}


def circular(answered: Sequence[Counted]) -> dict[str, float | None]:
    """Share of groups of which all samples are right, and of right samples.

    A question with N options is asked N times, the options moved on by one each time; it counts as answered only if it
    is every time. "Circular evaluation", MMBench (arXiv:2307.06281), README of open-compass/MMBench.

    Returns
    -------
    `circular_accuracy`, of groups (a sample without one is a group by itself), and `accuracy`, of samples. A group of
    which some samples are missing, because an image was broken or a request failed, is judged by the others.
    """
    groups: dict[str | int, bool] = {}
    for number, one in enumerate(answered):
        group = number if one.group is None else one.group
        groups[group] = groups.get(group, True) and one.right
    return {"circular_accuracy": _share(sum(groups.values()), len(groups)), **accuracy(answered)}


def yes_no(answered: Sequence[Counted]) -> dict[str, float | None]:
    """POPE's figures: evaluate.py of AoiDragon/POPE (arXiv:2305.10355).

    Returns
    -------
    `accuracy`, `precision`, `recall` and `f1` (of `yes`), and `yes_ratio`: the share of replies that say yes, where
    half should. All 0 to 1, `None` where one would divide by 0. Judged by `said_yes` alone, so that `accuracy` is the
    published one even where `right` was judged more strictly.
    """
    pairs = [(said_yes(one.said), one.answer.casefold() == "yes") for one in answered]
    hits = sum(said and meant for said, meant in pairs)
    all_said, all_meant = sum(said for said, _ in pairs), sum(meant for _, meant in pairs)
    return {
        "accuracy": _share(sum(said == meant for said, meant in pairs), len(pairs)),
        "precision": _share(hits, all_said),
        "recall": _share(hits, all_meant),
        "f1": _share(2 * hits, all_said + all_meant),
        "yes_ratio": _share(all_said, len(pairs)),
    }


def said_yes(reply: str) -> bool:
    """POPE's reading of a reply: no if the first sentence has a word `no`, `No` or `not`, else yes."""
    words = reply.split(".")[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


METRICS: Final[Mapping[Metric, Callable[[Sequence[Counted]], dict[str, float | None]]]] = {
    "accuracy": accuracy,
    "yes_no": yes_no,
    "circular": circular,
}


def count(metric: Metric, answered: Iterable[Counted]) -> dict[str, dict[str, float | None]]:
    """Figures of a metric per family, families in order of appearance, `all` last."""
    families = grouped(answered, lambda one: one.family)
    return {family: METRICS[metric](some) for family, some in families.items()}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
