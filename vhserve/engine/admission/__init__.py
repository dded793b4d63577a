"""Owns which waiting requests are taken in: while the replies of those that run will find room.

`reply_lengths` and `reckoning` are pure; `holders` reads vLLM's KV cache managers, and `mixin` asks all of them for the
scheduler. Does not know plans, kernels or servers.
"""

__all__ = ["holders", "mixin", "reckoning", "reply_lengths"]
