"""Owns the weights of a plan: which rows and columns are loaded, and the bias that compensates for removed heads.

Does not know KV caches or metadata; builds on `attention`, and nothing of it but `models` builds on this.
"""

__all__ = [
    "decoder_attention",
    "dropped_tokens",
    "mean_compensation",
    "packed_parts",
    "projection_choice",
    "projections",
    "removed_layer",
    "sliceable",
    "surgery",
    "weight_views",
]
