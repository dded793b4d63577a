"""``evict`` and ``evict:n``: the head sees the image while the prompt is computed, and then drops image blocks."""

from typing import Final

from profiles.treatments.definition import ALL_BLOCKS, NO_BLOCKS, ImageBlocks, Treatment
from profiles.treatments.thinned import STRIDES

EVICT: Final = Treatment(
    name="evict",
    label="evicted",
    phrase="dropping the image once the prompt is computed",
    description="attends to every token of the prompt while it is computed; replies see its text only",
    seen_in_prompt=ALL_BLOCKS,
    seen_in_reply=NO_BLOCKS,
    budget="evict",
    colour="#009e73",
    hatch="...",
)

EVICT_TO: Final = tuple(
    Treatment(
        name=f"evict:{stride}",
        label=f"evicted to 1/{stride}",
        phrase=f"keeping one image block in {stride} once the prompt is computed",
        description=f"attends to every token while the prompt is computed; replies see one image block in {stride}",
        seen_in_prompt=ALL_BLOCKS,
        seen_in_reply=ImageBlocks(stride),
        budget=f"evict_{stride}",
        colour=colour,
        hatch=".",
    )
    for stride, colour in zip(STRIDES, ("#b2e2d0", "#7fcfb2", "#40b693"), strict=True)
)
"""By the share of the image that is left, the largest first."""
