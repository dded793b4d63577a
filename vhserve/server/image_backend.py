"""Are pictures resized as those were that heads were chosen by? Said once, as a server starts.

Owns the comparison of a plan's image backend with the server's own. Does not know how either resizes.
"""

from typing import Any

from profiles.pruning_plan import PruningPlan
from vhserve.compat.api_server import api_server_rank
from vhserve.compat.prompts import media_processor_of
from vhserve.notes import print_note
from vhserve.server.at_start import AtStart
from vhserve.server.settings import settings_of


class ImageBackendCheck(AtStart):
    """Compares the two where a server has a plan."""

    def act(self, app: Any) -> None:
        _check(app)


def backend_warning(plan: PruningPlan, own: str | None) -> str | None:
    """What to say of a server whose pixels are not the plan's; None where they are, or where either is not known.

    Parameters
    ----------
    own
        transformers' name of the server's backend, such as ``torchvision``.
    """
    made = plan.image_backend
    if made is None or own is None or made == own:
        return None
    return (
        f"the plan's heads were chosen by pictures that {made} resized, and this server's are resized by {own}: what "
        "the plan costs in accuracy may differ; serve without another backend in --mm-processor-kwargs, or calibrate "
        "with the server's"
    )


def _check(app: Any) -> None:
    plan, state = settings_of(app).plan, app.state
    if plan is None or api_server_rank(state.vllm_config) > 0:
        return
    backend = getattr(media_processor_of(state.engine_client.renderer, "image"), "backend", None)
    if (line := backend_warning(plan, backend)) is not None:
        print_note(line, "warning")
