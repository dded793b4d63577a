"""Owns attention under a plan: full and text-only heads side by side, over block tables without their null blocks.

Does not know which heads these are, nor the weights around the attention. Builds on `checks`, `kv_cache`, `layer_plan`.
"""

__all__ = [
    "cache_write",
    "cache_write_kernel",
    "compaction_kernel",
    "device_builder",
    "device_compaction",
    "gathered_attention",
    "host_builder",
    "host_compaction",
    "known_queries",
    "lane_attention",
    "layer_attention",
    "partial_backend",
    "partial_builder",
    "partial_impl",
    "query_routing",
    "split_attention",
    "step_compaction",
]
