"""Owns what runs inside vLLM's processes: a plan's weights, attention, KV cache and scheduling.

Does not know `calibrate` or the command line. A module imports only from the same subpackage and from those before it:
`checks`, `kv_cache`, `admission`, `kv_offload`, `layer_plan`, `operators`, `attention`, `image_exit`, `weights`,
`token_counters`, `scheduler`, `vip_llava`, `models`; `plugin` imports `checks` alone.
"""

__all__ = [
    "admission",
    "attention",
    "checks",
    "image_exit",
    "kv_cache",
    "kv_offload",
    "layer_plan",
    "models",
    "operators",
    "plugin",
    "scheduler",
    "token_counters",
    "vip_llava",
    "weights",
]
