"""A server that resizes pictures otherwise than calibration did for its plan says so at its start."""

import pytest
from live_server import Server

from profiles.geometry import ModelGeometry, ModelRef
from profiles.pruning_plan import PruningPlan
from vhserve.server.image_backend import backend_warning

BARE = PruningPlan.manual(
    ModelRef(name="m", revision="r", architecture="LlavaForConditionalGeneration"),
    ModelGeometry(layers=3, query_heads=4, kv_heads=4, head_size=32, hidden_size=100, image_tokens=9),
)


@pytest.mark.parametrize(
    ("made", "own", "is_said"),
    [
        ("pil", "torchvision", True),
        ("torchvision", "pil", True),
        ("pil", "pil", False),
        (None, "pil", False),
        ("pil", None, False),
    ],
)
def test_what_is_said(made: str | None, own: str | None, is_said: bool) -> None:
    line = backend_warning(BARE.model_copy(update={"image_backend": made}), own)
    assert (line is not None) == is_said
    if line is not None:
        assert f"pictures that {made} resized, and this server's are resized by {own}" in line
        assert "\n" not in line


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_it_is_said_once_at_the_start_of_a_server(server: Server) -> None:
    (line,) = [
        line for line in server.log.read_text(errors="replace").splitlines() if "this server's are resized" in line
    ]
    assert "vhserve: warning: the plan's heads were chosen by pictures that pil resized" in line
    assert "this server's are resized by torchvision:" in line
