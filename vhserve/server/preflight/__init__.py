"""Owns what is known to end a server's start before vLLM is imported, which takes many seconds: each is one line.

Flags, address, length, files of the checkpoint, memory. Does not know plans' heads or how vLLM serves.
"""

__all__ = ["address", "flags", "length", "memory", "model_files", "vllm_flags"]
