"""Owns what is known to end a server's start before vLLM is imported, which takes many seconds: each is one line.

Flags, address, length, files of the checkpoint, memory, the KV cache, quantisation. Does not know plans' heads or how
vLLM serves.
"""

__all__ = ["address", "flags", "kv_cache", "length", "memory", "model_files", "vllm_flags", "weights"]
