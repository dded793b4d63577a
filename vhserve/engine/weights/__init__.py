"""The weights of a plan: projections of the kept heads, cut out of the checkpoint, and what stands for removed ones.

Does not know KV caches.
"""
