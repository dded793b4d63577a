"""The saved state of an interrupted run: written atomically, loaded only into a run of the same settings.

Owns the state file beside the output and the comparison of settings. Does not know what the arrays mean.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibrate.errors import StateMismatch
from calibrate.runs.processes import Processes
from profiles.files import write_atomically

Arrays = dict[str, npt.NDArray[np.float64]]

_DISCARD = "give --restart to discard it, or another --out to keep it"


class SavedState:
    """State file of one process of a run.

    Parameters
    ----------
    out
        Where the results will be; the state lies beside it.
    processes
        Those of the run; each has a file of its own.
    settings
        All that must be the same for the run to be continued: JSON values, by the words a user knows them by.
    """

    def __init__(self, out: Path, processes: Processes, settings: Mapping[str, Any]) -> None:
        part = f"-{processes.rank}-of-{processes.world_size}" if processes.world_size > 1 else ""
        self.path = out.with_name(f"{out.name}.partial{part}")
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))

    def load(self) -> Arrays | None:
        """Arrays of the interrupted run; `None` when there is none.

        Raises
        ------
        StateMismatch
            The file belongs to other settings, or cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files if name != "settings"}
                theirs = json.loads(str(saved["settings"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StateMismatch(
                f"{self.path}: saved state cannot be read", expected="the state of an interrupted run", fix=_DISCARD
            ) from error
        if theirs != self._settings:
            raise StateMismatch(
                f"{self.path}: saved state of another run: {_differences(theirs, self._settings)}",
                expected="the settings of the interrupted run",
                fix=f"use those to continue it, {_DISCARD}",
            )
        return arrays

    def save(self, arrays: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Write the state; the file is at every moment the old one or the new one, whole.

        Raises
        ------
        FileUnwritable
        """
        content: dict[str, Any] = {"settings": np.array(json.dumps(self._settings)), **arrays}
        buffer = io.BytesIO()
        np.savez(buffer, **content)
        write_atomically(self.path, buffer.getvalue())

    def discard(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    parts = []
    for name in sorted(theirs.keys() | ours.keys()):
        before, now = theirs.get(name), ours.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            if before != now:
                parts.append(f"{name}: ({_differences(before, now)})")
        elif before != now:
            parts.append(f"{name} was {before}, is now {now}")
    return ", ".join(parts)
