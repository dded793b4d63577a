"""Owns the KV cache of a plan: which layers share blocks, which blocks a request holds, how many requests fit.

Does not know weights, kernels or vLLM's options; of `vhserve.engine` it imports nothing else.
"""

__all__ = [
    "capacity",
    "cell",
    "image_spans",
    "lane_assignment",
    "lanes",
    "manager",
    "pool",
    "saving",
    "spec",
    "worker_tables",
]
