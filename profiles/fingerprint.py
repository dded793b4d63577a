"""The revision of a model folder: a Hub commit where the folder is a Hub snapshot, else a fingerprint of its files.

Standard library only. Does not know what is in the files, and reads at most 2 MiB of each weight file.
"""

import hashlib
import re
from pathlib import Path

from profiles.errors import FileUnreadable

EDGE = 2**20
WEIGHTS = ("*.safetensors", "*.bin")


def model_revision(path: Path) -> str:
    """Revision of the model in a folder.

    Returns
    -------
    str
        The 40 hexadecimal digits of the commit for ``…/snapshots/<commit>``, else ``sha256:…`` over ``config.json``
        and, for each weight file in order of name: name, size, first and last MiB.

    Raises
    ------
    FileUnreadable
        The folder, or its ``config.json``, cannot be read.
    """
    folder = path.resolve()
    if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name):
        return folder.name
    total = hashlib.sha256()
    try:
        _add(total, (folder / "config.json").read_bytes())
        for weights in sorted(file for pattern in WEIGHTS for file in folder.glob(pattern)):
            with weights.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                first = file.read(EDGE)
                file.seek(max(0, size - EDGE))
                for part in (weights.name.encode(), str(size).encode(), first, file.read(EDGE)):
                    _add(total, part)
    except OSError as error:
        wrong = f"{path}: {error.strerror or error}"
        raise FileUnreadable(wrong, expected="a model folder with a config.json", fix="check the path") from error
    return f"sha256:{total.hexdigest()}"


def _add(total: "hashlib._Hash", part: bytes) -> None:
    # Lengths keep two parts apart: without them, moving a byte from one to the next would change nothing.
    total.update(len(part).to_bytes(8, "little"))
    total.update(part)
