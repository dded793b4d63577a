"""Finds a model that is to be measured, and refuses one that cannot be before torch is imported, which takes seconds.

Owns the order of the checks; what they are is in `profiles.checkpoints`. Loads nothing.
"""

from calibrate.models.registry import FoundModel, find
from profiles.checkpoints.expected_shapes import check_shapes
from profiles.checkpoints.preprocessing import check_processor, check_tokenizer
from profiles.checkpoints.quantisation import check_unquantised
from profiles.checkpoints.weights import read_tensors


def find_measurable(name: str, revision: str | None = None, preferred: str | None = None) -> FoundModel:
    """Find a model whose heads can be measured; of a folder, look at the files that will be loaded.

    Parameters
    ----------
    name, revision, preferred
        See `calibrate.models.registry.find`.

    Raises
    ------
    UnknownModel, ModelOffline, UnsupportedModel
        As `calibrate.models.registry.find`.
    ModelQuantised
        Its weights are quantised.
    ModelBroken
        Files are missing, damaged or of different models.
    """
    found = find(name, revision, preferred)
    check_unquantised(
        found.name,
        found.config,
        fix="measure the unquantised checkpoint; its plan is served with unquantised weights, too",
    )
    if found.is_local:  # files of a Hub model may not be there yet
        check_processor(found.name, found.folder)
        check_tokenizer(found.name, found.folder)
        check_shapes(found.name, found.config, read_tensors(found.folder))
    return found
