"""``full``: the head as the model has it."""

from typing import Final

from profiles.treatments.definition import Treatment

FULL: Final = Treatment(
    name="full",
    label="full",
    phrase="left as they are",
    description="attends to every token",
    colour="#f3f3f3",
    hatch="",
)
