"""Does a plan fit the model it is to be served with? Asked before vLLM is imported, which takes many seconds.

Reads the model's configuration and, for its revision, its weight files. Does not know vLLM or its flags.
"""

from pathlib import Path

from profiles.checkpoints.configuration import Json, decoder_geometry, read_json
from profiles.checkpoints.quantisation import check_unquantised, find_quantisation
from profiles.fingerprint import Bar, ModelIdentity, identify_model
from profiles.geometry import ModelGeometry, ModelRef
from profiles.planning.fit import check_fit
from profiles.planning.layout import layer_layouts
from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks.surgery_choice import SLICE, AskedSurgery


def check_model(plan: PruningPlan, name: str, folder: Path, surgery: AskedSurgery = "auto") -> None:
    """Refuse a model of another kind or size than the one that a plan was made for, and a plan that no model can hold.

    Parameters
    ----------
    name
        The model as the user called it.
    folder
        Where its `config.json` lies.
    surgery
        How heads are to be chosen.

    Raises
    ------
    ModelMismatch, ModelQuantised, ModelBroken, LayoutRefused
    """
    layer_layouts(plan)
    config = read_json(folder / "config.json")
    architecture = str((config.get("architectures") or ["unknown"])[0])
    if surgery == SLICE:
        check_unquantised(name, config, fix="serve it with --surgery gather, or without --surgery")
    model = ModelRef(name=name, revision=plan.model.revision, architecture=architecture)
    check_fit(plan, model, _geometry(config, folder, plan.geometry.image_tokens))


def quantised_warning(plan: PruningPlan, name: str, folder: Path) -> str | None:
    """What to say of quantised weights, which are not those that a plan was made for; None for others."""
    found = find_quantisation(read_json(folder / "config.json"))
    if found is None:
        return None
    return (
        f"the weights of {name} are quantised: {found}. That the plan's model, {plan.model.name}, was quantised to "
        "these is taken for granted; `vhserve evaluate` measures what they answer together"
    )


def _geometry(config: Json, folder: Path, image_tokens: int) -> ModelGeometry:
    """Sizes of the decoder: read off the file, or by transformers where the file leaves out what is not known here."""
    found = decoder_geometry(config, image_tokens)
    if found is not None:
        return found

    from profiles.torchvision_import import ensure_torchvision

    ensure_torchvision()
    from transformers import AutoConfig

    from profiles import transformers_config

    return transformers_config.decoder_geometry(AutoConfig.from_pretrained(folder), image_tokens)


def check_revision(plan: PruningPlan, name: str, folder: Path, bar: Bar | None = None) -> ModelIdentity:
    """Refuse another revision of the model than the one that a plan was made for; call `check_model` first.

    Not for random weights, which have no revision.

    Parameters
    ----------
    bar
        Shows how far reading the weights is, where that takes long.

    Returns
    -------
    ModelIdentity
        What was compared.

    Raises
    ------
    ModelMismatch, ModelBroken, FileUnreadable
    """
    found = identify_model(folder, plan.model.revision, bar)
    check_fit(plan, plan.model.model_copy(update={"name": name, "revision": found.revision}), plan.geometry)
    return found
