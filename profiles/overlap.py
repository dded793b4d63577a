"""What was measured on pictures that heads had been chosen by: how many, and the line that says it.

Owns the words. Does not know how heads were chosen or what was measured.
"""

from dataclasses import dataclass

from profiles.head_profile import DatasetRef


@dataclass(frozen=True)
class Overlap:
    """Pictures that two sets of samples have in common.

    Attributes
    ----------
    shared
        How many of the pictures that were measured on heads were chosen by.
    measured
        Pictures that were measured on.
    """

    shared: int
    measured: int

    def line(self, chosen_by: str) -> str | None:
        """What a user should know; None where there is no overlap. `chosen_by` names the profile or plan."""
        if not self.shared:
            return None
        return (
            f"heads were chosen by {self.shared} of the {self.measured} pictures that are measured on ({chosen_by}), "
            "which makes them look better than they are; measure on the half that they were not chosen by "
            "(--split measuring), or on other pictures"
        )


def overlap(chosen: DatasetRef | None, measured: DatasetRef) -> Overlap | None:
    """The overlap by the pictures' digests; None where either does not record them."""
    theirs = None if chosen is None else chosen.pictures
    ours = measured.pictures
    return None if theirs is None or ours is None else Overlap(len(theirs & ours), len(ours))


def shared_pictures(chosen: DatasetRef | None, measured: DatasetRef) -> int | None:
    """How many pictures both have, as results record it; None where it is not known."""
    found = overlap(chosen, measured)
    return None if found is None else found.shared
