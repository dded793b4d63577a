"""``text_only``: the head sees no image block, and its KV cache keeps none."""

from typing import Final

from profiles.treatments.definition import NO_BLOCKS, Treatment

TEXT_ONLY: Final = Treatment(
    name="text_only",
    label="text-only",
    phrase="attending to text only",
    description="attends to text only; keeps no image block",
    seen_in_prompt=NO_BLOCKS,
    seen_in_reply=NO_BLOCKS,
    budget="text_only",
    colour="#56b4e9",
    hatch="////",
)
