"""What Triton's attention returns for a query of a sequence without tokens.

Does not know why a sequence has none. Importing it is cheap.
"""

from typing import Any


def compute_at_once(metadata: Any) -> None:
    """Let Triton's attention compute every sequence of a batch at once, and not in segments that are put together.

    Symptom
        Replies are NaN once a step computes one token of an image, which text-only heads give nothing to see.
    Cause
        In batches of few requests with one query each, sequences are split. `reduce_segments` divides by the length of
        a segment, which is 0 where the sequence is empty; in 0.33 it writes nothing then, so that what was in memory
        stays. The kernel that does not split returns zero there.
    Removal
        `reduce_segments` returns zero for an empty sequence.

    Parameters
    ----------
    metadata
        Of any backend; changed in place where it is Triton's.
    """
    if hasattr(metadata, "seq_threshold_3D"):
        metadata.seq_threshold_3D = 0  # most requests whose sequences are split
