"""ViP-LLaVA, which vLLM has no model of: ours against transformers', without a plan and with plans.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each step, stays below 1e-5.
"""

from dataclasses import replace

import pytest
from engine_cases import Case, EngineRuns, worst_difference
from engine_host import EngineHost, EngineOutcome, Job, Round
from exactness import EXACT, PROMPTS, TELLING
from oracle import TinyModel
from tiny_models import make_tiny_vip_llava
from transformers import VipLlavaForConditionalGeneration

from profiles.geometry import ModelGeometry
from profiles.pruning_plan import PruningPlan

pytestmark = pytest.mark.vllm

ARCHITECTURE = "VipLlavaForConditionalGeneration"
ASKED = (Round(PROMPTS),)


@pytest.fixture(scope="session")
def vip_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    """The decoders of the paper's four: Vicuna's kind, Llama-3's with grouped queries, and Phi-3's.

    The second under the tensor names that transformers 5 saves, the others under those on the Hub.
    """
    folder = tmp_path_factory.mktemp("vip-models")
    grouped = make_tiny_vip_llava(folder / "llama-3", layers=4, query_heads=6, kv_heads=3, feature_layers=(1, -3))
    VipLlavaForConditionalGeneration.from_pretrained(grouped).save_pretrained(grouped)
    return {
        "vicuna": TinyModel(
            make_tiny_vip_llava(folder / "vicuna", layers=3, query_heads=5),
            ModelGeometry(layers=3, query_heads=5, kv_heads=5, head_size=32, hidden_size=120, image_tokens=81),
            ARCHITECTURE,
        ),
        "llama-3": TinyModel(
            grouped,
            ModelGeometry(layers=4, query_heads=6, kv_heads=3, head_size=32, hidden_size=120, image_tokens=81),
            ARCHITECTURE,
        ),
        "phi-3": TinyModel(
            make_tiny_vip_llava(folder / "phi-3", layers=3, query_heads=4, decoder="phi3", feature_layers=(-2,)),
            ModelGeometry(layers=3, query_heads=4, kv_heads=4, head_size=32, hidden_size=128, image_tokens=81),
            ARCHITECTURE,
        ),
    }


def stock(host: EngineHost, model: TinyModel) -> EngineOutcome:
    """What our model says without a plan."""
    outcome = host.run(Job(str(model.path), None, ASKED))
    assert outcome.failure is None, outcome.failure
    return outcome


@pytest.mark.parametrize("name", ["vicuna", "llama-3", "phi-3"])
def test_without_a_plan_it_says_what_transformers_says(
    name: str, engine_host: EngineHost, vip_models: dict[str, TinyModel]
) -> None:
    model = vip_models[name]
    answers = stock(engine_host, model).answers
    worst = worst_difference(model.oracle, PruningPlan.unpruned(model.ref, model.geometry), ASKED, answers)
    print(f"{name}: largest difference {worst:.1e}")
    assert worst < EXACT


def test_without_pictures_it_needs_no_vision_tower(engine_host: EngineHost, vip_models: dict[str, TinyModel]) -> None:
    model, asked = vip_models["vicuna"], (Round(PROMPTS[2:3]),)
    whole = PruningPlan.unpruned(model.ref, model.geometry)
    outcome = engine_host.run(Job(str(model.path), None, asked, {"limit_mm_per_prompt": {"image": 0}}))
    assert outcome.failure is None, outcome.failure
    assert worst_difference(model.oracle, whole, asked, outcome.answers) < EXACT


def test_other_layers_of_the_vision_tower_would_be_seen(
    engine_host: EngineHost, vip_models: dict[str, TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their order."""
    model = vip_models["vicuna"]
    answer, whole = stock(engine_host, model).answers[0][0], PruningPlan.unpruned(model.ref, model.geometry)
    for layers in ([-4, -2, 1], [-3, -4, 1], [-2, -4, 0]):
        monkeypatch.setattr(model.oracle.model.config, "vision_feature_layers", layers)
        assert model.oracle.difference(PROMPTS[0], answer, whole) > TELLING


CASES = {
    "removed": Case("vicuna", {0: (0, 3), 1: (4,), 2: tuple(range(5))}, mean=True),
    "text_only": Case("vicuna", {0: (1,)}, {1: (0, 2, 4), 2: tuple(range(5))}),
    "grouped_queries": Case("llama-3", {3: (0, 1)}, {0: (0, 1), 1: (2, 3, 4, 5)}, granularity="kv_group"),
    "gathered": Case("vicuna", {0: (0, 3)}, {1: (0, 2, 4), 2: tuple(range(5))}, mean=True, surgery="gather"),
    "one_tensor_for_queries_keys_and_values": Case("phi-3", {0: (1,)}, {1: (0, 2), 2: (0, 1, 2, 3)}, mean=True),
}


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, vip_models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, vip_models, CASES)


@pytest.mark.parametrize("name", CASES)
def test_with_a_plan_it_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    worst = served.worst_difference(name)
    print(f"{name}: largest difference {worst:.1e}")
    assert worst < EXACT


@pytest.mark.parametrize("name", CASES)
def test_the_plan_matters(name: str, served: EngineRuns, vip_models: dict[str, TinyModel]) -> None:
    case, model = CASES[name], vip_models[CASES[name].model]
    other = replace(case, removed={}, text_only={}, mean=False).plan(model)
    assert worst_difference(model.oracle, other, case.rounds, served(name).answers) > TELLING
