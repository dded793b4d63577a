"""What a server would allocate, by vLLM's own configuration and the plan's lanes, without starting an engine.

Owns `vhserve serve --dry-run` after all checks have passed. Arithmetic on counts of KV heads; loads no weights.
"""

import json
from argparse import Namespace
from dataclasses import asdict, dataclass
from typing import Any

from profiles.error_text import one_line
from profiles.geometry import ModelGeometry
from profiles.pruning_plan import PruningPlan
from profiles.transformers_config import decoder_geometry
from vhserve.engine.kv_cache.capacity import capacity
from vhserve.engine.kv_cache.pool import Pool
from vhserve.errors import FlagRefused
from vhserve.server.preflight.memory import GIB, check_one_request_fits


@dataclass(frozen=True)
class Allocation:
    """What one engine of a server would allocate.

    Attributes
    ----------
    block_size
        Tokens of a KV block.
    cell_bytes
        Bytes that one KV head keeps of a token: key, value, and their scales.
    kv_cache_bytes
        Size of the KV cache; None where vLLM decides at start, by the memory that is left then.
    block_bytes
        Bytes of one block of the pool, for all layers of the widest KV cache group.
    request_blocks
        Blocks that the longest request takes, where it is all text.
    blocks
        Blocks of the pool, one of which is never allocated; None with `kv_cache_bytes`.
    max_model_len
        Tokens of the longest request.
    groups
        KV cache groups, each with a block table of its own.
    image_requests, text_requests
        Prompts that fit at once, with an image and of text alone; None with `kv_cache_bytes`, or without a plan.
    """

    block_size: int
    cell_bytes: int
    kv_cache_bytes: int | None
    block_bytes: int
    request_blocks: int
    blocks: int | None
    max_model_len: int
    groups: int
    image_requests: float | None
    text_requests: float | None


def allocation(arguments: Namespace, plan: PruningPlan | None) -> Allocation:
    """What vLLM would allocate for a parsed command line.

    Raises
    ------
    FlagRefused
        vLLM refuses the configuration.
    MemoryTooSmall
        The KV cache cannot hold one request of the greatest length.
    """
    config = _engine_config(arguments)
    cache, length = config.cache_config, config.model_config.max_model_len
    geometry = _geometry(config) if plan is None else plan.geometry
    pool = Pool.of(geometry, plan, cache.block_size, _cell_bytes(config, geometry.head_size))
    memory, blocks = cache.kv_cache_memory_bytes, cache.num_gpu_blocks_override
    if blocks is not None:
        memory = blocks * pool.block_bytes
    elif memory is not None:
        blocks = memory // pool.block_bytes
    if config.model_config.original_max_model_len != -1:  # else vLLM fits the length to the KV cache
        request, given = f"one request of {length} tokens", cache.num_gpu_blocks_override
        check_one_request_fits(request, length, pool, blocks=given, size=memory)
    image = text = None
    if blocks is not None and plan is not None:
        holds = capacity(pool.groups, blocks - 1, plan.geometry.image_tokens, pool.block_size)
        image, text = holds.image_requests, holds.text_requests
    return Allocation(
        block_size=pool.block_size,
        cell_bytes=pool.cell_bytes,
        kv_cache_bytes=memory,
        block_bytes=pool.block_bytes,
        request_blocks=pool.blocks_of_text(length),
        blocks=blocks,
        max_model_len=length,
        groups=sum(pool.groups.of.values()),
        image_requests=image,
        text_requests=text,
    )


def described(found: Allocation) -> str:
    """The allocation in lines of words."""
    blocks = f"blocks of {found.block_size} tokens, {found.block_bytes} bytes each, in {found.groups} groups"
    request = f"a request of the greatest length, {found.max_model_len} tokens, takes {found.request_blocks}"
    if found.blocks is None:
        return f"KV cache: as large as memory allows at start; {GIB // found.block_bytes} to a GiB, {blocks}; {request}"
    lines = [f"KV cache: {found.blocks} {blocks}; {request}"]
    if found.image_requests is not None:
        lines.append(f"holds {found.image_requests:.2f} prompts with an image, or {found.text_requests:.2f} of text")
    return "\n".join(lines)


def as_json(found: Allocation, facts: dict[str, Any]) -> str:
    """The allocation as a JSON document, behind what is known beside it."""
    return json.dumps({**facts, **asdict(found)}, indent=2)


def _engine_config(arguments: Namespace) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs

    arguments = Namespace(**{**vars(arguments), "model": arguments.model_tag or arguments.model})
    try:
        return AsyncEngineArgs.from_cli_args(arguments).create_engine_config()
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        raise FlagRefused(
            f"vLLM refuses the configuration: {one_line(str(error))}",
            expected="flags of `vllm serve` that go together with the model",
            fix="correct them",
        ) from error


def _geometry(config: Any) -> ModelGeometry:
    """What one process has of the model's decoder, where several share it."""
    model, parallel = config.model_config, config.parallel_config
    shares = {"layers": model.get_num_layers(parallel), "kv_heads": model.get_num_kv_heads(parallel)}
    return decoder_geometry(model.hf_config, 0).model_copy(update=shares)


def _cell_bytes(config: Any, head_size: int) -> int:
    from vhserve.engine.kv_cache.cell import cell_bytes

    return cell_bytes(config, head_size)
