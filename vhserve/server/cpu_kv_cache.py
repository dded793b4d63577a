"""How much memory a server on CPUs takes for its KV cache unless it is told.

vLLM takes 92% of the machine's memory there, which leaves none to others and is written to while the server starts.
Owns the amount, and which settings of vLLM's say it already. Does not know plans.
"""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

from profiles.planning.savings import kv_bytes_baseline
from profiles.transformers_config import context_length, decoder_geometry

GIB: Final = 1 << 30
SHARE: Final = 0.25
"""Of the memory that is available."""
LEAST: Final = GIB
MOST: Final = 4 * GIB
"""Bytes; a model that needs more for one request of its greatest length gets that."""

_VARIABLE: Final = "VLLM_CPU_KVCACHE_SPACE"
_UTILISATION: Final = 0.92
"""vLLM's default of --gpu-memory-utilization."""
_ROOM: Final = 1.1
"""For padding, and the block that is never allocated."""
_CGROUP: Final = Path("/sys/fs/cgroup")
_MEMINFO: Final = Path("/proc/meminfo")


def decoder_config(folder: Path) -> Any | None:
    """The transformers configuration in a model's folder; None for one that transformers cannot read by itself."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError):
        return None


def choose(arguments: Namespace, config: Any | None) -> str | None:
    """Set the KV cache's size among the parsed arguments of a server on CPUs; None where the user has set it.

    Parameters
    ----------
    config
        The model's transformers configuration; None where it is not known.

    Returns
    -------
    What was chosen, and how to change it.
    """
    if _is_set(arguments):
        return None
    usual = min(max(int(SHARE * available_memory()), LEAST), MOST)
    size = max(usual // arguments.data_parallel_size, longest_request(arguments, config))
    arguments.kv_cache_memory_bytes = size
    each = " for each engine" if arguments.data_parallel_size > 1 else ""
    return f"a KV cache of {size / GIB:.1f} GiB{each}; set another with --kv-cache-memory-bytes, or {_VARIABLE} in GiB"


def _is_set(arguments: Namespace) -> bool:
    return bool(
        arguments.kv_cache_memory_bytes is not None
        or os.environ.get(_VARIABLE)
        or arguments.num_gpu_blocks_override is not None
        or arguments.gpu_memory_utilization not in (None, _UTILISATION)
    )


def longest_request(arguments: Namespace, config: Any | None) -> int:
    """Bytes of KV cache that one request of the greatest length takes, with room to spare; 0 where it is not known."""
    if config is None:
        return 0
    tokens = arguments.max_model_len or context_length(config) or 0
    size = 4 if arguments.dtype in ("float32", "float") else 2
    return int(max(tokens, 0) * kv_bytes_baseline(decoder_geometry(config, 0), size) * _ROOM)


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Bytes that this process could still take, by the kernel and by the limit of its container."""
    amounts = [
        int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")
    ]
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        limit = used = "max"
    if limit.isdigit() and used.isdigit():
        amounts.append(max(int(limit) - int(used), 0))
    return min(amounts, default=MOST)
