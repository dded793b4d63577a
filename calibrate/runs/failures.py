"""What goes wrong in a forward pass, in a user's words: a device that is full, attention that is no number.

Owns the recognition of full devices and the wording. Does not know what was being measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from calibrate.errors import NotFiniteAttention, OutOfDeviceMemory
from calibrate.models.loading import LoadedModel


@contextmanager
def telling_full_devices(loaded: LoadedModel, batch_size: int) -> Iterator[None]:
    """Turn errors of a full device, or a full host, into `OutOfDeviceMemory`; others pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        smaller = f"run the same again with --batch-size {batch_size // 2}, which continues where it stopped"
        raise OutOfDeviceMemory(
            f"a batch of {batch_size} does not fit in the memory of {loaded.device}",
            expected="a batch that fits",
            fix=smaller if batch_size > 1 else "use --dtype bfloat16, smaller images or a larger device",
        ) from error


def not_finite(loaded: LoadedModel) -> NotFiniteAttention:
    """The error of attention that is NaN or infinite, to be raised."""
    return NotFiniteAttention(
        f"model {loaded.ref.name} gives NaN or infinite attention in {loaded.dtype}",
        expected="finite numbers",
        fix="use --dtype bfloat16 or float32, and check the weights",
    )


def _is_out_of_memory(error: Exception) -> bool:
    full_host = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    return full_host or isinstance(error, torch.OutOfMemoryError)
