"""What a server would allocate, by vLLM's own configuration and the plan's lanes, without starting an engine.

Owns `vhserve serve --dry-run` after all checks have passed. Arithmetic on counts of KV heads; loads no weights.
"""

import json
from argparse import Namespace
from dataclasses import asdict, dataclass
from typing import Any

from profiles.error_text import one_line
from profiles.geometry import ModelGeometry
from profiles.planning.layout import layer_layouts
from profiles.planning.savings import kv_bytes_baseline
from profiles.pruning_plan import PruningPlan
from profiles.transformers_config import decoder_geometry
from profiles.treatments import FULL
from vhserve.engine.kv_cache.capacity import GroupCounts, capacity, groups_of
from vhserve.engine.kv_cache.lane_assignment import PADDING_BYTES, assign_lanes
from vhserve.engine.kv_cache.lanes import PromptBlocks
from vhserve.errors import FlagRefused, MemoryTooSmall


@dataclass(frozen=True)
class Allocation:
    """What one engine of a server would allocate.

    Attributes
    ----------
    block_size
        Tokens of a KV block.
    dtype_bytes
        Bytes of one element of the KV cache.
    kv_cache_bytes
        Size of the KV cache; None where vLLM decides at start, by the memory that is left then.
    block_bytes
        Bytes of one block of the pool, for all layers of the widest KV cache group.
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
    dtype_bytes: int
    kv_cache_bytes: int | None
    block_bytes: int
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
    cache, size = config.cache_config, config.cache_config.block_size
    dtype_bytes = _dtype_bytes(config)
    groups = GroupCounts({FULL.name: 1}) if plan is None else groups_of(plan, size)
    geometry = decoder_geometry(config.model_config.hf_config, 0) if plan is None else plan.geometry
    block_bytes = bytes_of_block(geometry, plan, size, dtype_bytes)
    memory = cache.kv_cache_memory_bytes
    blocks = cache.num_gpu_blocks_override or (None if memory is None else memory // block_bytes)
    length = config.model_config.max_model_len
    image = text = None
    if blocks is not None:
        needed = groups.blocks(PromptBlocks(-(-length // size)))
        if needed > blocks - 1:
            raise MemoryTooSmall(
                f"one request of {length} tokens needs {needed} KV blocks, and the KV cache has {max(0, blocks - 1)}",
                expected=f"--kv-cache-memory-bytes of {(needed + 1) * block_bytes} at least",
                fix="raise it, or lower --max-model-len",
            )
        if plan is not None:
            holds = capacity(groups, blocks - 1, plan.geometry.image_tokens, size)
            image, text = holds.image_requests, holds.text_requests
    return Allocation(size, dtype_bytes, memory, block_bytes, blocks, length, sum(groups.of.values()), image, text)


def bytes_of_block(geometry: ModelGeometry, plan: PruningPlan | None, block_size: int, dtype_bytes: int) -> int:
    """Bytes of one block of the pool that all KV cache groups draw from: the widest group's."""
    if plan is None:
        return block_size * kv_bytes_baseline(geometry, dtype_bytes)
    head = block_size * 2 * geometry.head_size * dtype_bytes
    layouts = layer_layouts(plan)
    lanes = assign_lanes(layouts, geometry.image_tokens, block_size)
    if lanes is None:
        return sum(len(layout.full.kv) for layout in layouts) * head
    widths: dict[tuple[str, int], int] = {}
    for layout, layer in zip(layouts, lanes, strict=True):
        for name, lane in layer.items():
            page = len(layout.kept[name].kv) * head + PADDING_BYTES * lane.padded
            widths[name, lane.lane] = widths.get((name, lane.lane), 0) + page
    return max(widths.values())


def described(found: Allocation) -> str:
    """The allocation in lines of words."""
    blocks = f"blocks of {found.block_size} tokens, {found.block_bytes} bytes each, in {found.groups} groups"
    if found.blocks is None:
        return f"KV cache: as large as memory allows at start; {blocks}"
    lines = [f"KV cache: {found.blocks} {blocks}; requests of up to {found.max_model_len} tokens"]
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


def _dtype_bytes(config: Any) -> int:
    from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype

    dtype = kv_cache_dtype_str_to_dtype(config.cache_config.cache_dtype, config.model_config)
    return int(dtype.itemsize)
