"""Treats heads of a transformers model as serving does, and counts its right answers: the oracle of the engine.

Does not know which heads are worth treating.
"""

__all__ = [
    "ablations",
    "accuracy",
    "cached_forward",
    "image_blocks",
    "layer_treatments",
    "masked_runs",
    "masks",
    "positions",
    "prefix_sharing",
    "replies",
    "treatments",
]
