"""A model whose image rows end with tokens of text: the engine against the masked model, by the plan's span rule."""

import pytest
from engine_cases import worst_difference
from engine_host import BLOCK, EngineHost, Job, Round
from engine_prompts import EnginePrompt
from exactness import EXACT
from oracle import TinyModel
from tiny_families import FAMILIES

from profiles.geometry import ModelGeometry
from profiles.image_spans import OLD_RULE
from profiles.pruning_plan import PruningPlan

pytestmark = pytest.mark.vllm

GEOMETRY = ModelGeometry(layers=3, query_heads=9, kv_heads=3, head_size=32, hidden_size=144, image_tokens=12 * 13)
TREATED = {"text_only": 0, "thinned:2": 1, "evict": 2}
"""Layer of each treatment's group of heads."""
TELLING = 1e-3


@pytest.fixture(scope="module")
def pixtral(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return TinyModel(FAMILIES["pixtral"].make(tmp_path_factory.mktemp("pixtral")), GEOMETRY)


def test_rows_of_an_image_are_dropped_with_their_breaks(pixtral: TinyModel, engine_host: EngineHost) -> None:
    family = FAMILIES["pixtral"]
    plan = PruningPlan.manual(
        pixtral.ref,
        GEOMETRY,
        granularity="kv_group",
        **{name: [(layer, head) for head in range(3, 9)] for name, layer in TREATED.items()},
    )
    prompts = (
        *family.prompts,
        EnginePrompt(family.prompt(None, "yes", None), (3, 4)),  # closer to each other than what is bridged in an image
    )
    rounds = (Round(prompts), Round(prompts, reset=False))
    settings = {"max_num_batched_tokens": 100, "max_num_seqs": 4}
    for given in (plan, plan.model_copy(update={"image_spans": None})):
        outcome = engine_host.run(Job(str(pixtral.path), given.model_dump(mode="json"), rounds, settings))
        assert outcome.failure is None, outcome.failure
        worst = worst_difference(pixtral.oracle, given, rounds, outcome.answers)
        print(f"bridge {given.span_rule.bridge}: largest difference {worst:.1e}")
        assert worst < EXACT
        other = plan if given.span_rule == OLD_RULE else plan.model_copy(update={"image_spans": None})
        (first, *_), (answer, *_) = prompts, outcome.answers[0]
        assert pixtral.oracle.difference(first, answer, other) > TELLING
        assert len(answer.prompt_ids) > 2 * BLOCK
