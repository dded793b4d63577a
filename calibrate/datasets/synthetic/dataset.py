"""The synthetic world as a dataset: `calibrate.datasets.synthetic`, made on the spot.

Knows families and splits only by what the world says of them. No image can be broken.
"""

from collections.abc import Sequence
from typing import Final

from calibrate.datasets.base import Dataset
from calibrate.datasets.sample import Sample
from calibrate.datasets.synthetic import FAMILIES, make_sample
from calibrate.errors import FamilyUnknown, SplitUnknown
from profiles.head_profile import DatasetRef

NAME: Final = "synthetic"
SPLITS: Final = ("train", "held_out")

WORLD: Final = 1
"""Version of the world. A change that makes other samples of the same seeds raises it (pinned by a test)."""


class Synthetic(Dataset):
    """The first samples of a split of the synthetic world, the families in turn (round robin).

    Parameters
    ----------
    samples
        How many; there is no end to them.
    seed
        Another seed is other samples of the same split.
    split
        One of `SPLITS`; held out unless said otherwise.
    families
        Some of the world's, in any order; all by default.

    Raises
    ------
    FamilyUnknown, SplitUnknown
    """

    def __init__(
        self, *, samples: int, seed: int, split: str | None = None, families: Sequence[str] | None = None
    ) -> None:
        super().__init__(NAME)
        self._samples, self._seed, self._split = samples, seed, split or "held_out"
        wanted = FAMILIES if families is None else tuple(families)
        unknown = [name for name in wanted if name not in FAMILIES]
        if unknown or not wanted:
            raise FamilyUnknown(
                f"dataset {NAME} has no question family {', '.join(unknown)}"
                if unknown
                else "no question family given",
                expected=f"some of {', '.join(FAMILIES)}",
                fix="give some of these, or leave families out for all",
            )
        if self._split not in SPLITS:
            raise SplitUnknown(
                f"dataset {NAME} has no split {self._split!r}",
                expected=" or ".join(SPLITS),
                fix="give one of these, or leave the split out for held_out",
            )
        self._families = tuple(name for name in FAMILIES if name in wanted)

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
            },
        )

    def __len__(self) -> int:
        return self._samples

    def read(self, index: int) -> Sample:
        families = len(self._families)
        return make_sample(self._families[index % families], index // families, self._split, self._seed)
