"""What tests of the write of keys and values do inside a host of `device_engines`; called by name. Judges nothing."""

import random
from collections.abc import Sequence
from typing import Any

from engine_host import Round, ask
from engine_prompts import EnginePrompt
from text_only_probes import QUESTION


def layers_that_share(engine: Any) -> list[bool]:
    """Of each layer with several attentions, whether these have one write."""
    from vhserve.engine.attention.split_attention import SplitAttention

    def shared(worker: Any) -> list[bool]:
        return [one.shares_write for one in worker.get_model().modules() if isinstance(one, SplitAttention)]

    found: list[bool] = engine.collective_rpc(shared)[0]
    return found


def writes(engine: Any) -> dict[str, Any]:
    """What one more request writes: by which way, and whether caches hold what vLLM's own writes would leave there.

    And the pieces into which vLLM has split the compiled model, with the patch `noted_pieces`.
    """
    import torch
    from engine_patches import PIECES

    from vhserve.engine.attention import cache_write, cache_write_kernel

    one_launch, stock = cache_write_kernel.write_kv_parts, cache_write.write_as_stock
    seen: dict[str, Any] = {"at_once": 0, "stock": 0, "same": True, "views": 0, "pieces": list(PIECES)}

    def at_once(keys: Sequence[Any], values: Sequence[Any], caches: Sequence[Any], slots: Sequence[Any]) -> None:
        # Groups share blocks, and so memory: each part's write shows in the others' caches.
        memory = {cache.untyped_storage().data_ptr(): cache.untyped_storage() for cache in caches}
        copies = {place: stored.clone() for place, stored in memory.items()}
        one_launch(keys, values, caches, slots)
        for key, value, cache, own in zip(keys, values, caches, slots, strict=True):
            copy = torch.empty(0, dtype=cache.dtype).set_(
                copies[cache.untyped_storage().data_ptr()], cache.storage_offset(), cache.shape, cache.stride()
            )
            _write_one(key, value, copy, own)
        for place, stored in memory.items():
            ours, stocks = (torch.empty(0, dtype=torch.uint8).set_(one) for one in (stored, copies[place]))
            seen["same"] &= torch.equal(ours, stocks)
        seen["at_once"] += 1
        seen["views"] += sum(not key.is_contiguous() for key in (*keys, *values))

    def as_stock(*args: Any) -> None:
        seen["stock"] += 1
        stock(*args)

    cache_write_kernel.write_kv_parts, cache_write.write_as_stock = at_once, as_stock
    try:
        ask(engine, Round((EnginePrompt(QUESTION, (5,)),), tokens=2))
    finally:
        cache_write_kernel.write_kv_parts, cache_write.write_as_stock = one_launch, stock
    return seen


def _write_one(key: Any, value: Any, cache: Any, slots: Any) -> None:
    """vLLM's own write, of one part."""
    from unittest.mock import patch

    import torch
    from vllm.v1.attention.ops.triton_reshape_and_cache_flash import triton_reshape_and_cache_flash

    halves = cache.transpose(1, 2).split(key.shape[2], dim=-1)
    scale = torch.ones(())
    with patch.object(torch.cuda, "get_device_capability", lambda *args: (9, 0)):
        triton_reshape_and_cache_flash(key, value, *halves, slots, "auto", scale, scale)


def random_batches(seed: int, batches: int) -> dict[str, int]:
    """How many random batches one launch writes as vLLM writes each part, and as the definition says; bit by bit."""
    import torch

    from vhserve.engine.attention.cache_write import fit_one_launch
    from vhserve.engine.attention.cache_write_kernel import write_kv_parts

    rng = random.Random(seed)
    torch.manual_seed(seed)
    counts = {"fit": 0, "as defined": 0, "as vLLM": 0, "padding": 0}
    for _ in range(batches):
        keys, values, caches, slots = _batch(rng)
        defined, by_stock = ([cache.clone() for cache in caches] for _ in range(2))  # which keeps strides
        for key, value, cache, own in zip(keys, values, defined, slots, strict=True):
            size, block = key.shape[2], cache.shape[2]
            for token, slot in enumerate(own.tolist()):
                if slot >= 0:
                    cache[slot // block, :, slot % block, :size] = key[token]
                    cache[slot // block, :, slot % block, size:] = value[token]
        for parts in zip(keys, values, by_stock, slots, strict=True):
            _write_one(*parts)
        counts["fit"] += fit_one_launch(keys, values, caches, slots)
        write_kv_parts(keys, values, caches, slots)
        write_kv_parts(keys, values, caches, [own[:0] for own in slots])  # nothing to write
        for name, expected in (("as defined", defined), ("as vLLM", by_stock)):
            counts[name] += all(map(torch.equal, caches, expected))
        counts["padding"] += sum(int((own < 0).sum()) for own in slots)
    return counts


def _batch(rng: random.Random) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Keys, values, caches and slots of two to four parts, as a model passes them."""
    import torch

    dtype, size = rng.choice([torch.float32, torch.bfloat16, torch.float16]), rng.choice((32, 80, 128))
    block, blocks, tokens = rng.choice((16, 32, 48)), 8, rng.choice((1, 2, 7, 40))
    heads = [rng.choice((1, 2, 3, 5, 8)) for _ in range(rng.choice((2, 2, 2, 3, 4)))]
    head_major = rng.random() < 0.5
    # Columns of one tensor, with rows of padding beyond the slots.
    rows, width = tokens + rng.choice((0, 5)), sum(heads) * size
    qkv, widths = torch.randn(rows, 3 * width).to(dtype), [count * size for count in heads]
    keys, values = (
        [own.view(rows, -1, size) for own in run.split(widths, dim=-1)] for run in qkv.split(width, dim=-1)[1:]
    )
    caches, slots = [], []
    for count in heads:
        # Blocks of the pool's one size, of which a part's cells are the first bytes.
        pool = torch.randn(blocks, max(heads) * block * 2 * size + 64).to(dtype)
        order = (blocks, count, block, 2 * size) if head_major else (blocks, block, count, 2 * size)
        cache = pool[:, : count * block * 2 * size].view(order)
        caches.append(cache if head_major else cache.transpose(1, 2))
        own = torch.randperm((blocks - 1) * block)[:tokens] + block
        own[torch.rand(tokens) < 0.2] = -1
        slots.append(own)
    return keys, values, caches, slots
