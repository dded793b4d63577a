"""The model that `vhserve serve` is to load: found, its files looked at, compared with the plan, and pinned.

Owns which snapshot of it vLLM loads. Does not know flags of `vhserve serve` nor what a step of the server does.
"""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrate.models.registry import FoundModel
    from profiles.pruning_plan import PruningPlan
    from vhserve.server.preflight.flags import GivenFlags


def find_model(model: str, revision: str | None, plan: "PruningPlan | None") -> "FoundModel | None":
    """The model, or None for one that only vLLM may know how to serve, without a plan.

    Raises
    ------
    UnsupportedModel, ModelOffline, ModelBroken
    """
    from calibrate.errors import UnsupportedModel
    from calibrate.models.registry import find

    try:
        return find(model, revision, plan.model.revision if plan is not None else None)
    except UnsupportedModel:
        if plan is not None:
            raise
        return None


def check_files(model: str, found: "FoundModel | None", flags: "GivenFlags") -> None:
    """Look at the files that vLLM will load; those of a Hub model may still be fetched, if the Hub can be reached.

    Raises
    ------
    ModelBroken, ModelOffline
    """
    from calibrate.models.hub import files_missing, is_reachable
    from profiles.errors import ModelFilesMissing
    from vhserve.server.preflight.model_files import check_input_files, check_weight_files

    folder = found.folder if found is not None else Path(model)
    if not folder.is_dir():
        return
    config = found.config if found is not None else {}
    try:
        check_weight_files(model, folder, config, flags, supported=found is not None)
        check_input_files(model, folder, flags, supported=found is not None)
    except ModelFilesMissing as error:
        if found is None:  # a model of another kind may keep its weights and its words in other files
            return
        if found.is_local:
            raise
        if not is_reachable(found.source, flags.get("--revision")):
            raise files_missing(found.name, error.wrong) from error


def is_on_hub(repository: str, file: str) -> bool:
    """Whether the Hub can be reached, and has that file of that repository."""
    from calibrate.models.hub import is_reachable

    return is_reachable(repository, file=file)


def compare_revision(plan: "PruningPlan", plan_name: str, model: str, folder: Path) -> tuple[str, str]:
    """Compare every byte of the weights with what the plan was made for; a note or warning says what was compared.

    Raises
    ------
    ModelMismatch, ModelBroken, FileUnreadable
    """
    from calibrate.runs.progress import hashing_bar
    from profiles.fingerprint import old_scheme_warning
    from vhserve.server.model_check import check_revision, quantised_warning

    if warning := quantised_warning(plan, model, folder):
        return warning, "warning"
    found = check_revision(plan, model, folder, hashing_bar)
    if warning := old_scheme_warning(plan_name, plan.model.revision):
        return warning, "warning"
    return f"{model} is the model of {plan_name}: {found}", "note"


def pin(found: "FoundModel", arguments: Namespace) -> Path:
    """Make vLLM load the very snapshot that is checked, and return its folder.

    Raises
    ------
    ModelOffline
    """
    if found.source == str(found.folder):
        return found.folder
    if arguments.revision is None:
        arguments.revision = found.folder.name
        return found.folder

    from calibrate.models.hub import config_path

    folder = config_path(found.source, revision=arguments.revision).parent
    if folder.name.startswith(arguments.revision):  # vLLM finds no shortened commits
        arguments.revision = folder.name
    return folder
