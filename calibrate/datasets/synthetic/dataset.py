"""The synthetic world as a dataset: `calibrate.datasets.synthetic`, made on the spot.

Each half of it is a random stream of the world. Knows families only by what the world says of them. No image can be
broken.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from calibrate.datasets.base import DividedDataset
from calibrate.datasets.sample import Sample
from calibrate.datasets.splits import ALL, CHOOSING, MEASURING, SPLITS
from calibrate.datasets.synthetic import FAMILIES, REPLIES, make_sample
from calibrate.errors import FamilyUnknown, SplitUnknown
from profiles.head_profile import PICTURES, DatasetRef
from profiles.picture_digests import packed
from profiles.suggestions import did_you_mean

NAME: Final = "synthetic"
KNOWN: Final = (*FAMILIES, *REPLIES)
WORLD: Final = 1
"""Version of the world. A change that makes other samples of the same seeds raises it (pinned by a test)."""


class Synthetic(DividedDataset):
    """The first samples of a split of the synthetic world, the families in turn (round robin).

    Parameters
    ----------
    samples
        How many; there is no end to them.
    seed
        Another seed is other samples of the same split.
    split
        One of `calibrate.datasets.splits.SPLITS`; of `all`, the halves take turns, a sample of each family at a time.
    families
        Some of the world's, in any order; by default all with answers of one token.

    Raises
    ------
    FamilyUnknown, SplitUnknown
    """

    def __init__(
        self, *, samples: int, seed: int, split: str = MEASURING, families: Sequence[str] | None = None
    ) -> None:
        super().__init__(NAME)
        self._samples, self._seed, self._split = samples, seed, split
        wanted = FAMILIES if families is None else tuple(families)
        unknown = [name for name in wanted if name not in KNOWN]
        if unknown or not wanted:
            raise FamilyUnknown(
                f"dataset {NAME} has no question family {', '.join(unknown)}"
                if unknown
                else "no question family given",
                expected=f"some of {', '.join(KNOWN)}",
                fix=did_you_mean("".join(unknown[:1]), KNOWN, "give some of these, or leave families out for all"),
            )
        if self._split not in SPLITS:
            raise SplitUnknown(
                f"dataset {NAME} has no split {self._split!r}",
                expected=f"one of {', '.join(SPLITS)}",
                fix=did_you_mean(self._split, SPLITS, "give one of these"),
            )
        self._families = tuple(name for name in KNOWN if name in wanted)

    def ref(self) -> DatasetRef:
        return DatasetRef(
            name=self.name,
            digest=None,
            split=self._split,
            settings={
                "world": WORLD,
                "samples": self._samples,
                "seed": self._seed,
                "families": ",".join(self._families),
                PICTURES: packed(self._digest(index) for index in range(len(self))),
            },
        )

    def retaken(self, *, samples: int, split: str) -> "Synthetic":
        again = Synthetic(samples=samples, seed=self._seed, split=split, families=self._families)
        again.say = self.say
        return again

    def __len__(self) -> int:
        return self._samples

    def read(self, index: int) -> Sample:
        return make_sample(*self._place(index))

    def _place(self, index: int) -> tuple[str, int, str, int]:
        """Where the world has a sample: family, number, split, seed."""
        number, family = divmod(index, len(self._families))
        split = self._split
        if split == ALL:
            number, half = divmod(number, 2)
            split = (CHOOSING, MEASURING)[half]
        return self._families[family], number, split, self._seed

    def _digest(self, index: int) -> bytes:
        """SHA-256 of what makes the picture, which takes less than making it."""
        return hashlib.sha256(repr((NAME, WORLD, *self._place(index))).encode()).digest()
