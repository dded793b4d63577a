"""The two halves of a dataset: heads are chosen by one, and what treating them costs is measured on the other.

Owns the rule: a picture's digest says in which half it is, and every question about the picture is in that half. So the
halves stay what they are when a file is shuffled or grows, and when its pictures are renamed or asked something else.
Does not know formats or questions.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from calibrate.datasets.pictures import MarkedPicture, Picture

CHOOSING: Final = "choosing"
MEASURING: Final = "measuring"
ALL: Final = "all"
"""Both halves: of a dataset that other data has been chosen for, or one too small to be divided."""

SPLITS: Final = (CHOOSING, MEASURING, ALL)

FEWEST: Final = 2
"""Samples that each half must have; a dataset with less is not divided."""


class Halves:
    """Which half each picture is in; a picture is read once."""

    def __init__(self) -> None:
        self._digests: dict[Picture, bytes] = {}

    def digest(self, picture: Picture) -> bytes:
        """SHA-256 of a picture's file, before anything is drawn on it; of its name, where it cannot be read."""
        if isinstance(picture, MarkedPicture):
            return self.digest(picture.picture)
        if (known := self._digests.get(picture)) is None:
            try:
                known = picture.digest()
            except Exception:  # it will be named as broken when it is wanted, and has to be in some half until then
                known = hashlib.sha256(picture.name.encode(errors="replace")).digest()
            self._digests[picture] = known
        return known

    def of(self, picture: Picture) -> str:
        """`choosing` or `measuring`."""
        return CHOOSING if self.digest(picture)[0] < 128 else MEASURING

    def divide(self, pictures: Iterable[Picture]) -> bool:
        """Whether both halves have `FEWEST` samples, of which these are the pictures; reads no more than it takes."""
        counts = {CHOOSING: 0, MEASURING: 0}
        for picture in pictures:
            counts[self.of(picture)] += 1
            if min(counts.values()) >= FEWEST:
                return True
        return False


def other_split(split: str) -> str:
    """The other half; of what is no half, the same."""
    return {CHOOSING: MEASURING, MEASURING: CHOOSING}.get(split, split)
