"""How any run over samples is run: where its results go, how many samples at once, whether it continues.

Owns what all runs have in common; what is measured is theirs.
"""

from dataclasses import dataclass
from pathlib import Path


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
        Whether to draw a bar on standard error.
    """

    out: Path
    batch_size: int = 16
    restart: bool = False
    save_every: float = 10.0
    show_progress: bool = True
