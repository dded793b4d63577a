"""Is there enough memory for the KV cache that the command line asks for, and is that enough for one request?

Only what is certain without vLLM is refused: a KV cache that is larger than the memory that is free, with what is
offloaded of it, or smaller than one request of the greatest length in the narrowest type that it could have. Does not
know how vLLM measures memory.
"""

import os
from pathlib import Path
from typing import Final

from profiles.checkpoints.configuration import Json, context_length, decoder_configuration, decoder_geometry
from profiles.pruning_plan import PruningPlan
from vhserve.devices import block_size_on, serving_device
from vhserve.engine.kv_cache.pool import Pool
from vhserve.errors import MemoryTooSmall
from vhserve.server.preflight.flags import GivenFlags

GIB: Final = 1 << 30
_WIDTHS: Final = {"auto": 2, "bfloat16": 2, "float16": 2}
"""Least bytes of an element by --kv-cache-dtype; 1 for any other, and less where a number is of 4 bits."""

_SCALES: Final = 8
"""Bytes of the scales of a key and a value, where each head of each token has its own."""

_SPREAD: Final = (
    *("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp"),
    *("--decode-context-parallel-size", "-dcp", "--prefill-context-parallel-size", "-pcp"),
)
"""Flags that give each process a part of a request's KV cache; short ones stay so in releases without a table."""


def check_memory(flags: GivenFlags, config: Json, plan: PruningPlan | None) -> None:
    """Refuse a KV cache that cannot be allocated, or cannot hold one request of the greatest length.

    Parameters
    ----------
    config
        Content of the model's `config.json`; empty where it is not known.

    Raises
    ------
    MemoryTooSmall
    """
    size = given_bytes(flags)
    free = free_bytes() if serving_device() == "cpu" else None
    if size is not None and free is not None and size > free:
        raise MemoryTooSmall(
            f"a KV cache of {size / GIB:.2f} GiB is asked for, and {free / GIB:.2f} GiB of memory are free",
            expected="a KV cache that fits in memory beside the model",
            fix="lower --kv-cache-memory-bytes or VLLM_CPU_KVCACHE_SPACE, or end other programs",
        )
    _check_offloaded(offloaded_bytes(flags), 0 if free is None else size or 0)
    length, pool = _greatest_length(flags, config), _pool(flags, config, plan)
    if length is None or pool is None:
        return
    request = f"one request of the model's {length} tokens"
    if "--max-model-len" in flags:
        request = f"one request of --max-model-len {length} tokens"
    blocks = flags.whole_number("--num-gpu-blocks-override")
    if blocks is not None:
        check_one_request_fits(request, length, pool, blocks=blocks)
    elif size is not None:
        check_one_request_fits(request, length, pool, size=size)
    elif free is not None and pool.bytes_for_text(length) > free:
        raise MemoryTooSmall(
            f"{request} needs {pool.bytes_for_text(length) / GIB:.2f} GiB of KV cache or more, and {free / GIB:.2f} "
            "GiB of memory are free",
            expected="requests whose KV cache fits in memory beside the model",
            fix="give a lower --max-model-len, or end other programs",
        )


def check_one_request_fits(
    request: str, tokens: int, pool: Pool, *, blocks: int | None = None, size: int | None = None
) -> None:
    """Refuse a KV cache that cannot hold one request of so many text tokens.

    Parameters
    ----------
    request
        It, in words.
    blocks, size
        Blocks of the KV cache, or else its bytes: as the command line says it.

    Raises
    ------
    MemoryTooSmall
    """
    fix = "raise it, or lower --max-model-len"
    if blocks is not None and (needed := pool.blocks_of_text(tokens) + 1) > blocks:
        raise MemoryTooSmall(
            f"{request} needs {needed} KV blocks, one of which stays empty, and the KV cache is to have {blocks}",
            expected=f"--num-gpu-blocks-override {needed} at least",
            fix=fix,
        )
    if size is not None and (least := pool.bytes_for_text(tokens)) > size:
        raise MemoryTooSmall(
            f"{request} needs {least} bytes of KV cache or more, and it is to have {size}",
            expected=f"--kv-cache-memory-bytes {least} at least",
            fix=fix,
        )


def given_bytes(flags: GivenFlags) -> int | None:
    """Bytes of the KV cache that the command line or the environment asks for."""
    given = flags.whole_number("--kv-cache-memory-bytes")
    space = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "")
    if given is None and space.isdigit() and int(space) and serving_device() == "cpu":
        return int(space) * GIB
    return given


def offloaded_bytes(flags: GivenFlags) -> int:
    """Bytes of the host's memory that the command line asks for, for blocks that leave the KV cache."""
    try:
        return max(0, int(float(flags.get("--kv-offloading-size") or 0) * GIB))
    except (ValueError, OverflowError):  # vLLM says what is wrong with it
        return 0


def _check_offloaded(offloaded: int, beside: int) -> None:
    """Refuse to offload more than is free beside a KV cache of `beside` bytes of the same memory.

    Raises
    ------
    MemoryTooSmall
    """
    free = free_bytes()
    if offloaded and free is not None and offloaded + beside > free:
        cache = f" beside a KV cache of {beside / GIB:.2f} GiB" if beside else ""
        raise MemoryTooSmall(
            f"--kv-offloading-size asks for {offloaded / GIB:.2f} GiB{cache}, and {free / GIB:.2f} GiB of memory are "
            "free",
            expected="KV blocks that fit in the host's memory",
            fix="lower --kv-offloading-size, or end other programs",
        )


def free_bytes() -> int | None:
    """Memory that programs can have without others losing theirs, as Linux counts it; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _greatest_length(flags: GivenFlags, config: Json) -> int | None:
    """Tokens of the longest request; None where it is not known, or vLLM fits it to the KV cache."""
    if "--max-model-len" in flags:
        return flags.whole_number("--max-model-len") or None
    return context_length(config) if config else None


def _has_window(text: Json) -> bool:
    """Whether a decoder may attend to a window, which takes less; a Mistral has one unless it is said to have none."""
    return text.get("sliding_window", 4096 if text["model_type"] == "mistral" else None) is not None


def _pool(flags: GivenFlags, config: Json, plan: PruningPlan | None) -> Pool | None:
    """The least blocks that a server could have; None where that is not known."""
    kind = flags.get("--kv-cache-dtype") or "auto"
    if "fp4" in kind or "quant" in kind or "--hf-overrides" in flags:
        return None
    if "quantization_config" in config and kind == "auto":  # which may say the type of the KV cache, too
        return None
    if any((flags.whole_number(name) or 1) > 1 for name in _SPREAD):
        return None
    geometry = plan.geometry if plan is not None else decoder_geometry(config, 0) if config else None
    if geometry is None or _has_window(decoder_configuration(config)):
        return None
    width = 4 if kind == "auto" and flags.get("--dtype") in ("float32", "float") else _WIDTHS.get(kind, 1)
    cell = geometry.head_size * (1 if "int4" in kind else 2 * width) + _SCALES * kind.endswith("per_token_head")
    size = flags.whole_number("--block-size")
    if size is None and plan is not None:
        size = block_size_on(serving_device(), plan.block_size)
    if size is None and "--num-gpu-blocks-override" not in flags:
        size = 1  # vLLM chooses: count tokens
    return Pool.of(geometry, plan, size, cell) if size else None
