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
    check_model(kind, document.model, model, geometries=(document.geometry, geometry))


def check_model(
    kind: str, made_for: ModelRef, model: ModelRef, *, geometries: tuple[ModelGeometry, ModelGeometry] | None = None
) -> None:
    """Refuse what was made for another model, as `check_fit` does.

    Parameters
    ----------
    kind
        What was made, in a word.
    geometries
        Sizes of the model that it was made for, and of the given one; not compared if not given.

    Raises
    ------
    ModelMismatch
    """
    sides = [("architecture", made_for.architecture, model.architecture)]
    if geometries is not None:
        sides += [(size, *(getattr(one, size) for one in geometries)) for size in _SIZES]
    sides.append(("revision", made_for.revision, model.revision))
    for what, ours, theirs in sides:
        if ours != theirs:
            raise ModelMismatch(
                f"this {kind} is for {made_for.name} with {what} {ours}, but {model.name} has {what} {theirs}",
                expected=f"the model that the {kind} was made for",
                fix=f"give that model, or calibrate {'and plan for ' if kind == 'plan' else ''}{model.name}",
            )
