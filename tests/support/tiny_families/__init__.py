"""Tiny random checkpoints of the families beside LLaVA-1.5 and 1.6, in the files and tensor names of the Hub's.

Every axis has a size of its own, the image token is 4, and weights are large enough that dropping any one head is seen
in the logits. Knows nothing of profiles, plans or serving.
"""

from typing import Final

from tiny_families.family import Family
from tiny_families.glm4v import GLM4V
from tiny_families.idefics3 import IDEFICS3
from tiny_families.internvl import INTERNVL
from tiny_families.llava_onevision import LLAVA_ONEVISION
from tiny_families.pixtral import PIXTRAL
from tiny_families.qwen_vl import QWEN_VL

FAMILIES: Final[dict[str, Family]] = {
    family.name: family for family in (LLAVA_ONEVISION, *QWEN_VL, *INTERNVL, *PIXTRAL, GLM4V, *IDEFICS3)
}
"""By name."""

__all__ = ["FAMILIES", "Family"]
