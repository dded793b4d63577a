"""Is there enough memory for the KV cache that the command line asks for, and is that enough for one request?

Only what is certain without vLLM is refused: a KV cache of a given size that is larger than the memory that is free, or
smaller than one request of the greatest length in the narrowest type that it could have. Does not know blocks.
"""

import os
from pathlib import Path
from typing import Final

from profiles.checkpoints.configuration import Json, decoder_configuration, decoder_geometry
from profiles.planning.savings import kv_bytes_baseline, kv_bytes_per_token
from profiles.pruning_plan import PruningPlan
from vhserve.devices import serving_device
from vhserve.errors import MemoryTooSmall
from vhserve.server.preflight.flags import GivenFlags

GIB: Final = 1 << 30
_WIDTHS: Final = {"auto": 2, "bfloat16": 2, "float16": 2}
"""Least bytes of an element by --kv-cache-dtype; 1 for any other, and less for int4, of which nothing is refused."""


def check_memory(flags: GivenFlags, config: Json, plan: PruningPlan | None) -> None:
    """Refuse a KV cache that cannot be allocated, or cannot hold one request; passes where its size is not given.

    Parameters
    ----------
    config
        Content of the model's `config.json`; empty where it is not known.

    Raises
    ------
    MemoryTooSmall
    """
    size = given_bytes(flags)
    if size is None:
        return
    free = free_bytes()
    if serving_device() == "cpu" and free is not None and size > free:
        raise MemoryTooSmall(
            f"a KV cache of {size / GIB:.2f} GiB is asked for, and {free / GIB:.2f} GiB of memory are free",
            expected="a KV cache that fits in memory beside the model",
            fix="lower --kv-cache-memory-bytes or VLLM_CPU_KVCACHE_SPACE, or end other programs",
        )
    length, needed = flags.whole_number("--max-model-len"), _bytes_per_token(flags, config, plan)
    if length and needed and length * needed > size:
        raise MemoryTooSmall(
            f"a request of --max-model-len {length} tokens needs {length * needed} bytes of KV cache or more, and it "
            f"is to have {size}",
            expected=f"--kv-cache-memory-bytes of {length * needed} at least",
            fix="raise it, or lower --max-model-len",
        )


def given_bytes(flags: GivenFlags) -> int | None:
    """Bytes of the KV cache that the command line or the environment asks for."""
    given = flags.whole_number("--kv-cache-memory-bytes")
    space = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "")
    if given is None and space.isdigit() and int(space) and serving_device() == "cpu":
        return int(space) * GIB
    return given


def free_bytes() -> int | None:
    """Memory that programs can have without others losing theirs, as Linux counts it; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _bytes_per_token(flags: GivenFlags, config: Json, plan: PruningPlan | None) -> int | None:
    """Least bytes of KV cache of one text token; None where that is not known."""
    kind = flags.get("--kv-cache-dtype") or "auto"
    if "int4" in kind or "fp4" in kind or "quant" in kind:
        return None
    geometry = plan.geometry if plan is not None else decoder_geometry(config, 0) if config else None
    if geometry is None or "sliding_window" in decoder_configuration(config):
        return None
    width = 4 if kind == "auto" and flags.get("--dtype") in ("float32", "float") else _WIDTHS.get(kind, 1)
    return kv_bytes_baseline(geometry, width) if plan is None else kv_bytes_per_token(plan, width)
