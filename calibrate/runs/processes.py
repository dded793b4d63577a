"""The processes that share one run, as torchrun starts them: which samples each measures, and the sum over all of them.

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
_TIMEOUT = timedelta(days=2)


@dataclass(frozen=True)
class Processes:
    """This process's place among those of the run.

    Attributes
    ----------
    rank, world_size
        Number of this process, from 0, and how many there are.
    local_rank
        Number of this process on this machine; picks its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def owns(self, index: int) -> bool:
        """Whether this process measures the sample of an index; samples are assigned round-robin."""
        return index % self.world_size == self.rank

    def device(self, name: str) -> str:
        """This process's device: each its own GPU, where the name leaves that open."""
        if self.world_size > 1 and name in {"auto", "cuda"} and torch.cuda.is_available():
            return f"cuda:{self.local_rank % torch.cuda.device_count()}"
        return name

    def sum(self, array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """All-reduce: the sum of an array over all processes, in every process."""
        if self.world_size == 1:
            return array
        summed = torch.from_numpy(array.copy())
        distributed.all_reduce(summed)
        return summed.numpy()

    def wait(self) -> None:
        """Barrier: return when all processes have called it."""
        if self.world_size > 1:
            distributed.barrier()


SINGLE_PROCESS: Final = Processes()
"""One process, and no torch.distributed."""


@contextmanager
def init_distributed() -> Iterator[Processes]:
    """The processes of this run: the process group of torchrun when its environment is set, else this one process."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield SINGLE_PROCESS
        return
    distributed.init_process_group("gloo", timeout=_TIMEOUT)
    try:
        yield Processes(distributed.get_rank(), world_size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        distributed.destroy_process_group()
