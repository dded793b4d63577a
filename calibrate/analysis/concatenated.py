"""Several datasets as one, one after the other, so that one run measures and compares them.

Owns the names of their families. Knows datasets only as `Dataset`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from calibrate.datasets import DividedDataset, Sample
from profiles.head_profile import PICTURES, DatasetRef
from profiles.picture_digests import packed


class ConcatenatedDataset(DividedDataset):
    """Samples of several datasets; a family is called `dataset/family`.

    Broken images are counted over all together.
    """

    def __init__(self, parts: Sequence[DividedDataset]) -> None:
        super().__init__(",".join(part.name for part in parts))
        self._parts = parts
        self.say = parts[0].say
        self.notes = [note for part in parts for note in part.notes]
        self._ends = list(accumulate(len(part) for part in parts))

    def ref(self) -> DatasetRef:
        refs = [part.ref() for part in self._parts]
        settings = {f"{ref.name} {name}": value for ref in refs for name, value in ref.described().items()}
        settings[PICTURES] = packed(digest for ref in refs for digest in ref.pictures or ())
        settings |= {f"{ref.name} digest": ref.digest for ref in refs if ref.digest}
        splits = ",".join(ref.split or "" for ref in refs)
        return DatasetRef(name=self.name, digest=None, split=splits if splits.strip(",") else None, settings=settings)

    def retaken(self, *, samples: int, split: str) -> "ConcatenatedDataset":
        """The same datasets; at most so many samples of each."""
        return ConcatenatedDataset([part.retaken(samples=samples, split=split) for part in self._parts])

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: int) -> Sample:
        number = bisect_right(self._ends, index)
        part = self._parts[number]
        sample = part.read(index - (self._ends[number - 1] if number else 0))
        return replace(sample, family=f"{part.name.partition(':')[0]}/{sample.family}")
