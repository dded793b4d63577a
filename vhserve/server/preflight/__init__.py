"""Owns what is known to end a server's start before vLLM is imported, which takes many seconds: each is one line.

Flags, address, length, files of the checkpoint and of adapters, memory, the KV cache, quantisation, and what goes
together with a plan. Does not know plans' heads or how vLLM serves.
"""

__all__ = [
    "adapters",
    "address",
    "flags",
    "kv_cache",
    "length",
    "memory",
    "model_files",
    "plan_options",
    "prompt_media",
    "vllm_flags",
    "weights",
]
