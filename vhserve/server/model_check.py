"""Does a plan fit the model it is to be served with? Asked before vLLM is imported, which takes many seconds.

Reads the model's configuration and, for its revision, the edges of its weight files. Does not know vLLM or its flags.
"""

from pathlib import Path

from profiles.fingerprint import model_revision
from profiles.geometry import ModelRef
from profiles.planning.fit import check_fit
from profiles.planning.layout import layer_layouts
from profiles.pruning_plan import PruningPlan
from profiles.transformers_config import decoder_geometry
from vhserve.engine.checks.architectures import served_by
from vhserve.errors import ModelQuantised


def check_model(plan: PruningPlan, name: str, folder: Path) -> None:
    """Refuse a model of another kind or size than the one that a plan was made for, and a plan that no model can hold.

    Parameters
    ----------
    name
        The model as the user called it.
    folder
        Where its `config.json` lies.

    Raises
    ------
    ModelMismatch, ModelNotServable, ModelQuantised, LayoutRefused
    """
    layer_layouts(plan)

    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    architecture = (config.architectures or ["unknown"])[0]
    served_by(architecture)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelQuantised(
            f"the weights of {name} are quantised",
            expected="unquantised weights, out of which heads can be cut",
            fix="serve the unquantised checkpoint, or serve without --plan",
        )
    model = ModelRef(name=name, revision=plan.model.revision, architecture=architecture)
    check_fit(plan, model, decoder_geometry(config, plan.geometry.image_tokens))


def check_revision(plan: PruningPlan, name: str, folder: Path) -> None:
    """Refuse another revision of the model than the one that a plan was made for; call `check_model` first.

    Not for random weights, which have no revision.

    Raises
    ------
    ModelMismatch, FileUnreadable
    """
    model = plan.model.model_copy(update={"name": name, "revision": model_revision(folder)})
    check_fit(plan, model, plan.geometry)
