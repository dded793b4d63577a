"""What the tests of KV offloading read off an engine after it was asked: called by name, by the engine host.

Takes a `vllm.LLM` and returns plain values. Knows vLLM's connector; judges nothing.
"""

from typing import Any


def offloaded(engine: Any) -> dict[str, Any]:
    """What an engine has stored and loaded since it started, and what of it is still held when all requests have ended.

    `keys` are those of the blocks in the host's memory, in hexadecimal; `loaded` is in bytes, `hits` in tokens.
    """
    from vhserve.engine.kv_cache.spec import count_groups

    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    connector, config = scheduler.connector.connector_scheduler, scheduler.kv_cache_config
    pool = scheduler.kv_cache_manager.block_pool
    values = {metric.name: getattr(metric, "value", None) for metric in engine.get_metrics()}
    return {
        "keys": sorted(key.hex() for key in connector.manager._policy.chunks),
        "loaded": values.get("vllm:kv_offload_load_bytes", 0),
        "hits": values["vllm:external_prefix_cache_hits"],
        "groups": dict(count_groups(config).of),
        "block_bytes": config.kv_cache_tensors[0].size // config.num_blocks,
        "unfinished": len(connector._jobs),
        "held": pool.num_gpu_blocks - 1 - pool.get_num_free_blocks(),
    }
