"""Are requests written as the prompts were that heads were chosen by? Said once, as a server starts.

Owns the comparison of a plan's chat template with the server's own. Does not know where vLLM finds one.
"""

from typing import Any

from profiles.chat_template import template_digest
from profiles.pruning_plan import PruningPlan
from vhserve.compat.api_server import api_server_rank
from vhserve.compat.prompts import chat_template_of
from vhserve.notes import print_note
from vhserve.server.at_start import AtStart
from vhserve.server.settings import settings_of


class TemplateCheck(AtStart):
    """Compares the two where a server has a plan."""

    def act(self, app: Any) -> None:
        _check(app)


def template_warning(plan: PruningPlan, own: tuple[str, str] | None) -> str | None:
    """What to say of a server whose prompts are not the plan's; None where they are, or where the plan does not say.

    Parameters
    ----------
    own
        Text and content format of the server's template; None where it has none.
    """
    if (made := plan.chat_template) is None:
        return None
    here = "this server has none and refuses chat requests"
    if own is not None:
        digest = template_digest(own[0])
        if (digest, own[1]) == (made.digest, made.content_format):
            return None
        here = f"this server's is {digest[:19]}… (content format {own[1]})"
    return (
        f"the plan's heads were chosen by prompts of chat template {made}, and {here}: what the plan costs in accuracy "
        "may differ; serve with --chat-template, or calibrate with the server's"
    )


def _check(app: Any) -> None:
    plan, state = settings_of(app).plan, app.state
    if plan is None or api_server_rank(state.vllm_config) > 0:
        return
    own = chat_template_of(
        state.engine_client.renderer, state.args.chat_template, state.args.chat_template_content_format
    )
    if (line := template_warning(plan, own)) is not None:
        print_note(line, "warning")
