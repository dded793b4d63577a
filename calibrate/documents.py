"""What every results file has in common that was measured on a model, with heads chosen or ranked by a head profile.

Owns these fields: what was measured, on what, and by which code. Does not know what was found.
"""

from pydantic import PositiveInt

from profiles.geometry import ModelRef
from profiles.head_profile import DatasetRef
from profiles.strict import JsonScalar, Strict


class MeasuredDocument(Strict):
    """Base of results files.

    Attributes
    ----------
    profile_digest
        Of the head profile that heads were chosen or ranked by.
    samples, broken
        How many samples were measured, and which were skipped because their images are broken.
    block_size
        Size of the image blocks of text-only heads, in tokens; `None` for single image tokens.
    settings, versions, commit
        Flags that matter to the figures, versions of libraries, and the git commit, if it is known. Among the settings
        `shared_pictures`: how many of the pictures measured on are among those that the profile was made of; `None`
        where the profile does not record them.
    """

    model: ModelRef
    profile_digest: str
    dataset: DatasetRef
    samples: PositiveInt
    broken: list[str]
    block_size: PositiveInt | None
    settings: dict[str, JsonScalar]
    versions: dict[str, str]
    commit: str | None
