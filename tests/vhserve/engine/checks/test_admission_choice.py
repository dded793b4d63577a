"""How `--admission` travels to the engine."""

import pytest
from oracle import TinyModel

from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks.admission_choice import KEY, asked_admission
from vhserve.errors import FlagRefused
from vhserve.server.serving import engine_overrides

pytestmark = pytest.mark.vllm


def test_what_is_asked_for_arrives(models: dict[str, TinyModel]) -> None:
    model = models["mha"]
    plan = PruningPlan.manual(model.ref, model.geometry, text_only=[(0, 0)])
    given = {choice: engine_overrides(plan, "auto", choice)["additional_config"] for choice in ("reckon", "stock")}
    assert {choice: asked_admission(config) for choice, config in given.items()} == {
        "reckon": "reckon",
        "stock": "stock",
    }
    assert given["reckon"] == engine_overrides(plan)["additional_config"]
    assert asked_admission(None) == asked_admission({}) == "reckon"


def test_another_word_is_refused() -> None:
    with pytest.raises(FlagRefused, match=rf"{KEY} is 'eager'.*reckon, stock"):
        asked_admission({KEY: "eager"})
