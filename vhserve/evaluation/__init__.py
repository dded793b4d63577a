"""Owns the measuring of a server through its OpenAI-compatible endpoint: accuracy, paired comparison, latency.

Does not know how the server came to be, and never imports torch or vllm.
"""

__all__ = [
    "address",
    "arms",
    "attach",
    "chat",
    "client",
    "errors",
    "evicted",
    "failures",
    "keys",
    "latency",
    "options",
    "pairing",
    "provenance",
    "results",
    "run",
    "scoring",
    "server",
    "server_metrics",
    "tables",
    "token_latency",
]
