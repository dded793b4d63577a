"""How `--admission` and `--surgery` travel to the engine."""

from typing import Any

import pytest
from oracle import TinyModel

from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks import admission_choice, surgery_choice
from vhserve.errors import FlagRefused
from vhserve.server.serving import engine_overrides

pytestmark = pytest.mark.vllm


def both(additional_config: Any) -> tuple[str, str]:
    return surgery_choice.asked_surgery(additional_config), admission_choice.asked_admission(additional_config)


def test_what_is_asked_for_arrives(models: dict[str, TinyModel]) -> None:
    model = models["mha"]
    plan = PruningPlan.manual(model.ref, model.geometry, text_only=[(0, 0)])
    choices = [(surgery, admission) for surgery in ("auto", "slice", "gather") for admission in ("reckon", "stock")]
    given = [engine_overrides(plan, *choice)["additional_config"] for choice in choices]
    assert [both(config) for config in given] == choices
    assert given[0] == engine_overrides(plan)["additional_config"]
    assert both(None) == both({}) == ("auto", "reckon")


@pytest.mark.parametrize(
    ("choice", "words"), [(admission_choice, "reckon, stock"), (surgery_choice, "auto, slice, gather")]
)
def test_another_word_is_refused(choice: Any, words: str) -> None:
    with pytest.raises(FlagRefused, match=rf"{choice.KEY} is 'eager'.*one of {words}"):
        both({choice.KEY: "eager"})
