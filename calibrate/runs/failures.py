"""Failures of a forward pass as errors for users: a device that is out of memory, attention that is NaN or infinite.

Owns the recognition of out-of-memory errors and the wording. Does not know what was being measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from calibrate.errors import NotFiniteAttention, OutOfDeviceMemory
from calibrate.models.loading import LoadedModel


@contextmanager
def out_of_memory_as_user_error(loaded: LoadedModel, batch_size: int) -> Iterator[None]:
    """Turn out-of-memory errors of the device or the host into `OutOfDeviceMemory`; other errors pass."""
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


def non_finite_attention(loaded: LoadedModel) -> NotFiniteAttention:
    """The error to raise when attention is NaN or infinite."""
    return NotFiniteAttention(
        f"model {loaded.ref.name} gives NaN or infinite attention in {loaded.dtype}",
        expected="finite numbers",
        fix="use --dtype bfloat16 or float32, and check the weights",
    )


def _is_out_of_memory(error: Exception) -> bool:
    full_host = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    return full_host or isinstance(error, torch.OutOfMemoryError)
