"""Several processes that share one run, as torchrun starts them: which samples are whose, and adding up at the end.

Owns the reading of torchrun's environment and one all-reduce. What is reduced is a few small float64 arrays, so gloo on
CPU tensors serves every device. Does not know what is being summed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

# Ranks may finish far apart (a slow disk, a resumed run); torchrun ends the others when one fails.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Processes:
    """Where this process stands among those of the run.

    Attributes
    ----------
    rank, world
        Number of this process, and how many there are.
    local_rank
        Number of this process on this machine; picks its GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def owns(self, index: int) -> bool:
        """Whether the sample of an index is this process's; samples are dealt out in turn."""
        return index % self.world == self.rank

    def device(self, name: str) -> str:
        """This process's device: each its own GPU, where the name leaves that open."""
        if self.world > 1 and name in {"auto", "cuda"} and torch.cuda.is_available():
            return f"cuda:{self.local_rank % torch.cuda.device_count()}"
        return name

    def total(self, array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum of an array over all processes; every process gets it."""
        if self.world == 1:
            return array
        summed = torch.from_numpy(array.copy())
        distributed.all_reduce(summed)
        return summed.numpy()

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            distributed.barrier()


ALONE: Final = Processes()
"""One process, and no torch.distributed."""


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes of this run: those of torchrun when its environment is there, else this one alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        distributed.destroy_process_group()
