"""Questions about images in a JSON-lines file: one object per line, images beside it.

Owns which lines are taken, and reading their images. The whole file is checked before the first image is opened, which
is when its sample is read. What a line may hold is in `jsonl_lines`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from calibrate.datasets.base import BrokenImage, Dataset
from calibrate.datasets.jsonl_lines import Line, read_lines, with_options
from calibrate.datasets.sample import Sample
from calibrate.errors import DatasetBroken, FamilyUnknown, SplitUnknown
from profiles.errors import FileUnreadable
from profiles.head_profile import DatasetRef


class JsonLines(Dataset):
    """Samples of a `.jsonl` file.

    Each line is an object with `image` (path, relative to the file), `question` and `answer`, and, if wished, `family`
    (default `all`), `options` (all answers allowed; default: every answer that the family has in the file), `box`
    (`[x0, y0, x1, y1]` in pixels) and `id` (default: file name and line number).

    Parameters
    ----------
    path
        The file.
    samples, seed
        When the file has more lines, which of them are taken is drawn by seed; they keep the file's order.
    families
        Only lines of these.

    Raises
    ------
    FileUnreadable, FamilyUnknown, SplitUnknown
    DatasetBroken
        A line is malformed; says which line and field.
    """

    def __init__(
        self, path: Path, *, samples: int, seed: int, split: str | None = None, families: Sequence[str] | None = None
    ) -> None:
        super().__init__(path.name)
        self._folder, self._seed, self._asked, self._families = path.parent, seed, samples, families
        if split is not None:
            raise SplitUnknown(
                f"dataset {path.name} has no split {split!r}",
                expected="no split: a .jsonl file is one",
                fix="leave the split out, and keep splits in files of their own",
            )
        raw = _read(path)
        self._digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        lines = list(read_lines(path, raw))
        if not lines:
            raise DatasetBroken(f"{path}: has no line", expected="at least one sample", fix="add a line")
        lines = with_options(lines)
        if families is not None:
            lines = _of_families(path, lines, families)
        if samples < len(lines):
            taken = np.random.default_rng(seed).permutation(len(lines))[:samples]
            lines = [lines[i] for i in sorted(taken)]
        self._taken = lines

    def ref(self) -> DatasetRef:
        families = "" if self._families is None else ",".join(sorted(set(self._families)))
        return DatasetRef(
            name=self.name,
            digest=self._digest,
            split=None,
            settings={"samples": len(self), "seed": self._seed, "families": families},
        )

    def __len__(self) -> int:
        return len(self._taken)

    def read(self, index: int) -> Sample:
        line = self._taken[index]
        path = self._folder / line.image
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except Exception as error:  # Pillow raises whatever a damaged file makes its decoders stumble over
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be decoded ({error})"
            raise BrokenImage(f"line {line.number}: image {line.image} {' '.join(reason.split())}") from error
        return Sample(line.id, image, line.question, line.answer, line.family, line.options, line.box)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileUnreadable(
            f"{path}: {error.strerror or error}", expected="a readable .jsonl file", fix="check the path"
        ) from error


def _of_families(path: Path, lines: list[Line], families: Sequence[str]) -> list[Line]:
    there = sorted({line.family for line in lines})
    if unknown := [name for name in families if name not in there]:
        raise FamilyUnknown(
            f"dataset {path.name} has no question family {', '.join(unknown)}",
            expected=f"some of {', '.join(there)}",
            fix="give some of these, or leave families out for all",
        )
    return [line for line in lines if line.family in families]
