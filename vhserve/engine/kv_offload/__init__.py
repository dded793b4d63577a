"""Owns the KV cache's second tier, in the host's memory: blocks that leave the pool stay there, keyed by the plan.

vLLM's offloading connector does it; here is what it lacks for plans and on CPUs. Does not know weights or kernels.
"""

__all__ = ["connector", "host_memory"]
