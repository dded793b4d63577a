"""Questions about images in a JSON-lines file: one object per line, images beside it.

Owns that such a file is a dataset. What a line may hold is in `jsonl_lines`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from calibrate.datasets.jsonl_lines import read_lines, with_options
from calibrate.datasets.questions import Questions
from calibrate.datasets.records import read_bytes
from calibrate.datasets.splits import SPLITS
from calibrate.errors import DatasetBroken, SplitUnknown


class JsonLines(Questions):
    """Samples of a `.jsonl` file.

    Each line is an object with `image` (path, relative to the file), `question` and `answer`, and, if wished, `family`
    (default `all`), `options` (all answers allowed; default: every answer that the family has in the file), `box`
    (`[x0, y0, x1, y1]` in pixels; what of it lies beside the image is cut off) and `id` (default: file name and line
    number).

    Parameters
    ----------
    path
        The file.
    samples, seed
        When the file has more lines, which of them are taken is drawn by seed; they keep the file's order.
    split
        One of `calibrate.datasets.splits.SPLITS`.
    families
        Only lines of these.

    Raises
    ------
    FileUnreadable, FamilyUnknown, SplitUnknown
    DatasetBroken
        A line is malformed; says which line and field.
    """

    def __init__(
        self, path: Path, *, samples: int, seed: int, split: str, families: Sequence[str] | None = None
    ) -> None:
        if split not in SPLITS:
            raise SplitUnknown(
                f"dataset {path.name} has no split {split!r}",
                expected=f"one of {', '.join(SPLITS)}",
                fix="give one of these; splits in files of their own are taken whole with --split all",
            )
        raw = read_bytes(path)
        lines = list(read_lines(path, raw))
        if not lines:
            raise DatasetBroken(f"{path}: has no line", expected="at least one sample", fix="add a line")
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        super().__init__(
            path.name, with_options(lines), digest=digest, samples=samples, seed=seed, split=split, families=families
        )
