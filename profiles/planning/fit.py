"""Does this profile or plan belong to this model?

Does not know how a model's identity is found; compares what two sides say.
"""

from profiles.errors import ModelMismatch
from profiles.geometry import ModelGeometry, ModelRef
from profiles.head_profile import HeadProfile
from profiles.pruning_plan import PruningPlan

# image_tokens is left out: it describes the usual prompt, not the weights.
_SIZES = ("layers", "query_heads", "kv_heads", "head_size", "hidden_size")


def check_fit(document: HeadProfile | PruningPlan, model: ModelRef, geometry: ModelGeometry) -> None:
    """Refuse a document made for another model than the given one.

    Architecture, sizes and revision must agree; names may differ, as one model has many.

    Raises
    ------
    ModelMismatch
        Names the first thing that differs, on both sides.
    """
    kind = "plan" if isinstance(document, PruningPlan) else "profile"
    sides = [("architecture", document.model.architecture, model.architecture)]
    sides += [(size, getattr(document.geometry, size), getattr(geometry, size)) for size in _SIZES]
    sides += [("revision", document.model.revision, model.revision)]
    for what, ours, theirs in sides:
        if ours != theirs:
            raise ModelMismatch(
                f"this {kind} is for {document.model.name} with {what} {ours}, but {model.name} has {what} {theirs}",
                expected=f"the model that the {kind} was made for",
                fix=f"serve that model, or calibrate and plan for {model.name}",
            )
