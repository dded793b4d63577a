"""What every dataset is: so many samples in a fixed order, less those whose image is broken.

Owns the counting of broken images and when there are too many. Does not know where samples come from.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Final, Self

from calibrate.datasets.metrics import Metric
from calibrate.datasets.sample import Sample
from calibrate.errors import DatasetBroken
from profiles.head_profile import DatasetRef

MOST_BROKEN: Final = Fraction(1, 100)
"""Share of samples that may be left out because their image is broken."""


class BrokenImage(Exception):
    """A sample's image is missing, cannot be decoded or does not hold the sample's box; says which and why."""


class Dataset(ABC):
    """Samples in a fixed order: every iteration yields the same ones.

    Attributes
    ----------
    name
        What results are filed under; holds no folder of this machine.
    say
        Called with each sample that an iteration leaves out, as a line; `announce` sets it.
    broken
        What the latest iteration had to leave out, a line each.
    notes
        What the user should know of how the samples were taken: what was left out or not read; a line each.
    metric
        How the dataset's authors count answers.
    """

    metric: Metric = "accuracy"
    name: str

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []
        self.broken: list[str] = []
        self.say: Callable[[str], None] = lambda line: None

    @abstractmethod
    def ref(self) -> DatasetRef:
        """Which samples these are: enough to get them again."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples, broken ones included."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Read one sample, `0 <= index < len(self)`.

        Raises
        ------
        BrokenImage
        """

    def announce(self, say: Callable[[str], None]) -> None:
        """Have every note said, now, and every sample that an iteration leaves out, whenever it comes to it."""
        self.say = say
        for note in self.notes:
            say(note)

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples whose image is whole.

        Raises
        ------
        DatasetBroken
            As soon as more images than `MOST_BROKEN` of all are found to be broken; all others are tried, too, so that
            it says how many are.
        """
        self.broken = broken = []
        for index in range(len(self)):
            try:
                sample = self.read(index)
            except BrokenImage as error:
                broken.append(str(error))
                if len(broken) > MOST_BROKEN * len(self):
                    broken += self._broken_from(index + 1)
                    raise DatasetBroken(
                        f"dataset {self.name}: {len(broken)} of {len(self)} images are broken, such as {broken[0]}",
                        expected=f"{float(MOST_BROKEN):.0%} at most",
                        fix="mend the images or take their records out",
                    ) from error
                self.say(f"dataset {self.name}: left out: {broken[-1]}")
            else:
                yield sample

    def _broken_from(self, start: int) -> Iterator[str]:
        for index in range(start, len(self)):
            try:
                self.read(index)
            except BrokenImage as error:
                yield str(error)


class DividedDataset(Dataset):
    """A dataset with halves (`calibrate.datasets.splits`); other samples are taken of it without reading it again."""

    @abstractmethod
    def retaken(self, *, samples: int, split: str) -> Self:
        """The same data, of which other samples are taken; `notes` has what `self` does not have already.

        Parameters
        ----------
        samples
            How many at most.
        split
            A half, `all`, or the split that `self` was opened with.

        Raises
        ------
        SamplesTooFew
        """
