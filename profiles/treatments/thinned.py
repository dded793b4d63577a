"""``thinned:n``: the head sees and keeps every n-th image block of each image."""

from typing import Final

from profiles.treatments.definition import ImageBlocks, Treatment

STRIDES: Final = (2, 4, 8)

THINNED: Final = tuple(
    Treatment(
        name=f"thinned:{stride}",
        label=f"thinned to 1/{stride}",
        phrase=f"attending to one image block in {stride}",
        description=f"attends to text and to one image block in {stride}, from the first; keeps no other",
        seen_in_prompt=ImageBlocks(stride),
        seen_in_reply=ImageBlocks(stride),
        budget=f"thinned_{stride}",
        colour=colour,
        hatch="//",
    )
    for stride, colour in zip(STRIDES, ("#f0e442", "#e69f00", "#cc79a7"), strict=True)
)
"""By the share of the image that is left, the largest first."""
