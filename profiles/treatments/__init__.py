"""What can happen to a head: one file for each treatment, and the registry of them.

Owns which treatments there are and their order. Standard library only; does not know plans, caches or tensors.
"""

from typing import Final

from profiles.treatments.definition import ALL_BLOCKS, NO_BLOCKS, PHASES, ImageBlocks, Phase, Treatment
from profiles.treatments.evict import EVICT, EVICT_TO
from profiles.treatments.full import FULL
from profiles.treatments.removed import REMOVED
from profiles.treatments.text_only import TEXT_ONLY
from profiles.treatments.thinned import THINNED

__all__ = [
    "ALL_BLOCKS",
    "EVICT",
    "EVICT_TO",
    "FULL",
    "NO_BLOCKS",
    "PHASES",
    "REMOVED",
    "TEXT_ONLY",
    "THINNED",
    "TREATMENTS",
    "ImageBlocks",
    "Phase",
    "Treatment",
    "budgeted",
]

TREATMENTS: Final[dict[str, Treatment]] = {
    one.name: one for one in (FULL, *EVICT_TO, EVICT, *THINNED, TEXT_ONLY, REMOVED)
}
"""By name, the one that changes nothing first and the harshest last. Layouts, tables and figures go in this order."""


def budgeted() -> list[Treatment]:
    """Treatments whose heads ``vhserve plan`` chooses, in the order in which it does: the harshest first."""
    return [one for one in reversed(TREATMENTS.values()) if one.budget is not None]
