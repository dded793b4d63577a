"""Datasets that are a list of questions, each with a picture of its own: all but the synthetic one.

Owns which questions are taken, and turning one into a sample. The whole list is there, and checked, before the first
picture is opened. Does not know files or formats.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from calibrate.datasets.base import BrokenImage, DividedDataset
from calibrate.datasets.families import ALL as EVERY_FAMILY
from calibrate.datasets.pictures import Picture
from calibrate.datasets.placeholders import PLACEHOLDER, place_picture
from calibrate.datasets.records import Record, printable
from calibrate.datasets.sample import Box, Sample
from calibrate.datasets.splits import ALL, CHOOSING, FEWEST, MEASURING, SPLITS, Halves
from calibrate.errors import DatasetBroken, FamilyUnknown, SamplesTooFew
from profiles.head_profile import PICTURES, DatasetRef
from profiles.picture_digests import packed
from profiles.suggestions import did_you_mean


@dataclass(frozen=True)
class Question:
    """One checked question; the fields that `Sample` has mean what they mean there.

    Attributes
    ----------
    record
        Where it was read.
    unit
        Questions of one unit are taken together or not at all; its own `id` where it is `None`.
    """

    record: Record
    id: str
    picture: Picture
    question: str
    answer: str
    family: str
    options: tuple[str, ...]
    box: Box | None = None
    group: str | None = None
    unit: str | None = None
    picture_last: bool = False


class Questions(DividedDataset):
    """Samples of a list of questions.

    Parameters
    ----------
    questions
        All that there are, in their order; a placeholder at the beginning or end of one is where its picture goes.
    digest
        `sha256:…` of what they were read from.
    samples, seed
        When there are more questions, which of them are taken is drawn by seed; they keep their order.
    split
        A half, `choosing` or `measuring`; `all`; or the name of a published split, of which these are all questions. A
        dataset that is too small to be divided is taken whole, with a line in `notes`.
    published
        Name of the published split that these are questions of, if there is one.
    families
        Only questions of these.
    source
        Name of the files, or Hub id; kept in `ref`, so it holds no folder.

    Raises
    ------
    FamilyUnknown, SamplesTooFew
    DatasetBroken
        There is no question, two have the same id, or one has a placeholder for its picture in the middle.
    """

    def __init__(
        self,
        name: str,
        questions: Iterable[Question],
        *,
        digest: str,
        samples: int,
        seed: int,
        split: str,
        published: str | None = None,
        families: Sequence[str] | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__(name)
        self._seed, self._families, self._digest, self._halves = seed, families, digest, Halves()
        given = {"source": source, "published_split": published}
        self._settings: Mapping[str, str] = {key: value for key, value in given.items() if value is not None}
        found = [_placed(question) for question in _with_ids_of_their_own(questions)]
        if not found:
            raise DatasetBroken(f"dataset {name}: has no question", expected="at least one", fix="check its files")
        self._of_several_files = len({question.record.file for question in found}) > 1
        self._pictures = [question.picture for question in found]
        self._found = found if families is None else _of_families(name, found, families)
        self._take(samples, split)

    def retaken(self, *, samples: int, split: str) -> Self:
        again = copy(self)
        again.notes, again.broken = [], []
        again._take(samples, split)
        again.notes = [note for note in again.notes if note not in self.notes]
        return again

    def _take(self, samples: int, split: str) -> None:
        self._split = self._divided(split)
        self._taken = _drawn(self.name, self._found, samples, self._seed, self._in_split)
        if not self._taken:
            raise SamplesTooFew(
                f"dataset {self.name} has no question of these families in its half {split!r}",
                expected="at least one",
                fix="give other families, or --split all",
            )

    def ref(self) -> DatasetRef:
        families = "" if self._families is None else ",".join(sorted(set(self._families)))
        return DatasetRef(
            name=self.name,
            digest=self._digest,
            split=self._split,
            settings={
                "samples": len(self),
                "seed": self._seed,
                "families": families,
                **self._settings,
                PICTURES: packed(self._halves.digest(one.picture) for one in self._taken),
            },
        )

    def _divided(self, split: str) -> str:
        """The split, or `all` where it is a half of what cannot be divided."""
        if split not in (CHOOSING, MEASURING) or self._halves.divide(self._pictures):
            return split
        self.notes.append(
            f"dataset {self.name} is too small to be divided by its pictures: one half would have fewer than {FEWEST} "
            "samples; all of it is taken, to choose heads by and to measure on alike"
        )
        return ALL

    def _in_split(self, question: Question) -> bool:
        return self._split not in SPLITS or self._split in (ALL, self._halves.of(question.picture))

    def __len__(self) -> int:
        return len(self._taken)

    def read(self, index: int) -> Sample:
        one = self._taken[index]
        file = f"{Path(one.record.file).name}: " if self._of_several_files else ""
        name = printable(one.picture.name, 120)
        try:
            picture = one.picture.load()
        except (ValueError, OSError) as error:
            raise BrokenImage(f"{file}{one.record.place}: image {name} {_what_is_wrong(error)}") from error
        box = None if one.box is None else _inside(one.box, picture.image.size)
        if box is None and one.box is not None:
            raise BrokenImage(f"{file}{one.record.place}: image {name} ends before the box {one.box}")
        return Sample(
            id=one.id,
            image=picture.image,
            question=one.question,
            answer=one.answer,
            family=one.family,
            options=one.options,
            box=box,
            group=one.group,
            file=picture.file,
            picture_last=one.picture_last,
        )


def _placed(one: Question) -> Question:
    """A question without placeholder, and with its picture where the placeholder was."""
    if (placed := place_picture(one.question)) is None:
        raise one.record.broken(
            f"the question has {PLACEHOLDER} among its words, more than once, or nothing else",
            f"one {PLACEHOLDER} at its beginning or end, where the picture goes, or none",
        )
    return replace(one, question=placed.question, picture_last=placed.picture_last)


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return f"cannot be decoded ({printable(str(error), 200)})"


def _with_ids_of_their_own(questions: Iterable[Question]) -> list[Question]:
    seen: dict[str, Question] = {}
    for one in questions:
        if (other := seen.get(one.id)) is not None:
            raise one.record.broken(f"id {printable(one.id)!r} is that of {other.record.place} too", "an id of its own")
        seen[one.id] = one
    return list(seen.values())


def _of_families(name: str, questions: list[Question], families: Sequence[str]) -> list[Question]:
    if EVERY_FAMILY in families:
        return questions
    there = sorted({one.family for one in questions} - {EVERY_FAMILY})
    if unknown := [family for family in families if family not in there]:
        raise FamilyUnknown(
            f"dataset {name} has no question family {', '.join(unknown)}",
            expected=f"some of {', '.join((*there, EVERY_FAMILY))}",
            fix=did_you_mean(unknown[0], there, "give some of these, or leave families out for all"),
        )
    return [one for one in questions if one.family in families]


def _drawn(
    name: str, questions: list[Question], samples: int, seed: int, wanted: Callable[[Question], bool]
) -> list[Question]:
    """At most so many of the questions that are wanted, in their order: whole units, up to the first that is too much.

    No more of them are looked at than it takes, for that reads their pictures.
    """
    units: dict[str, list[int]] = {}
    for index, one in enumerate(questions):
        units.setdefault(one.unit or one.id, []).append(index)
    ordered = list(units.values())
    taken: list[int] = []
    for number in np.random.default_rng(seed).permutation(len(ordered)):
        unit = ordered[number]
        if not wanted(questions[unit[0]]):
            continue
        if len(taken) + len(unit) > samples:
            if not taken:
                raise SamplesTooFew(
                    f"{samples} samples of dataset {name} hold no whole question, which it asks in several ways",
                    expected=f"at least {max(map(len, ordered))}",
                    fix="ask for more samples, or for fewer families",
                )
            break
        taken += unit
        if len(taken) == samples:
            break
    return [questions[index] for index in sorted(taken)]


def _inside(box: Box, size: tuple[int, int]) -> Box | None:
    """The part of a box that lies on a picture of that size."""
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(size[0])), min(box[3], float(size[1]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
