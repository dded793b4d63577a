"""``removed``: the head is neither computed nor cached."""

from typing import Final

from profiles.treatments.definition import NO_BLOCKS, Treatment

REMOVED: Final = Treatment(
    name="removed",
    label="removed",
    phrase="removed",
    description="neither computed nor cached",
    computed=False,
    seen_in_prompt=NO_BLOCKS,
    seen_in_reply=NO_BLOCKS,
    budget="remove",
    colour="#d55e00",
    hatch="xxxx",
)
