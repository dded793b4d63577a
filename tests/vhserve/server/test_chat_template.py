"""A server whose prompts are written otherwise than those that its plan's heads were chosen by says so at its start."""

import pytest
from live_server import Server

from profiles.chat_template import TemplateRef, template_digest
from profiles.geometry import ModelGeometry, ModelRef
from profiles.pruning_plan import PruningPlan
from vhserve.server.chat_template import template_warning

BARE = PruningPlan.manual(
    ModelRef(name="m", revision="r", architecture="LlavaForConditionalGeneration"),
    ModelGeometry(layers=3, query_heads=4, kv_heads=4, head_size=32, hidden_size=100, image_tokens=9),
)
TEXT = "{{ messages }}"
OWN = TemplateRef(digest=template_digest(TEXT), source="tokenizer", content_format="string")
PLAN = BARE.model_copy(update={"chat_template": OWN})


@pytest.mark.parametrize(
    ("plan", "own", "said"),
    [
        (PLAN, (TEXT, "string"), None),
        (PLAN, (TEXT, "openai"), "(content format openai)"),
        (PLAN, ("{{ other }}", "string"), template_digest("{{ other }}")[:19]),
        (PLAN, None, "has none and refuses chat requests"),
        (BARE, (TEXT, "string"), None),
        (BARE, None, None),
    ],
)
def test_what_is_said(plan: PruningPlan, own: tuple[str, str] | None, said: str | None) -> None:
    line = template_warning(plan, own)
    assert (line is None) == (said is None)
    if line is not None and said is not None:
        assert said in line
        assert str(OWN) in line
        assert "\n" not in line


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_it_is_said_once_at_the_start_of_a_server(server: Server) -> None:
    lines = [line for line in server.log.read_text(errors="replace").splitlines() if "chat template sha256:" in line]
    assert len(lines) == 1
    assert "vhserve: warning: the plan's heads were chosen by prompts of chat template sha256:another" in lines[0]
