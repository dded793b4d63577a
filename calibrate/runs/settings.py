"""Settings that every run over samples has, what a run must be to continue another, and what results say of it.

Owns what all runs have in common; settings of one kind of run stand beside what it measures.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.datasets import Dataset
from calibrate.models.loading import LoadedModel
from profiles.head_profile import PICTURES
from profiles.provenance import versions


@dataclass(frozen=True)
class RunSettings:
    """Settings that change nothing of a run's results beyond float error.

    Attributes
    ----------
    out
        Where the results go; the state of an interrupted run lies beside it.
    batch_size
        Samples in one forward pass; an interrupted run may be continued with another.
    restart
        Discard the state of an interrupted run.
    save_every
        Seconds between two savings of the state.
    show_progress
        Whether to show progress on standard error.
    """

    out: Path
    batch_size: int = 16
    restart: bool = False
    save_every: float = 10.0
    show_progress: bool = True


def run_identity(loaded: LoadedModel, dataset: Dataset) -> dict[str, Any]:
    """What the results of any run depend on beyond float error, by the words a user knows: for `SavedState`."""
    ref = dataset.ref()
    return {
        "model": loaded.ref.name,
        "revision": loaded.ref.revision,
        "dataset": ref.name,
        "dataset digest": ref.digest,
        "split": ref.split,
        "dataset settings": ref.described(),
        "pictures": _digest(str(ref.settings.get(PICTURES))),
        **execution(loaded),
        "versions": versions("vhserve", "torch", "transformers"),
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def execution(loaded: LoadedModel) -> dict[str, str]:
    """Dtype, kind of device, image backend and chat template of a model, as results and saved states hold them."""
    return {
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": loaded.device.type,
        "image_backend": loaded.image_backend,
        **loaded.template.ref.settings(),
    }
