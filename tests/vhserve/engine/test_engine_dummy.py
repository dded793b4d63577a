"""`load_format=dummy`: a pruned engine without a checkpoint has the pruned shapes and computes what they mean.

The engine's own random weights are put into a transformers model, at the places of the heads that were kept; what is
at the places of removed heads is left as it was, and masked.
"""

import shutil

import numpy as np
import pytest
import torch
from engine_host import EngineHost, EngineOutcome, Job, Round
from exactness import EXACT, PROMPTS, TELLING
from oracle import Oracle, TinyModel

from profiles.planning.layout import LayerLayout, layer_layouts
from profiles.planning.savings import kv_bytes_per_token, weight_bytes_saved
from profiles.pruning_plan import PruningPlan

pytestmark = pytest.mark.vllm

REMOVED = [(0, 0), (0, 3), (0, 5), (1, 2), (1, 3), *((2, head) for head in range(6))]


@pytest.fixture(scope="module")
def plan(models: dict[str, TinyModel]) -> PruningPlan:
    return PruningPlan.manual(models["gqa"].ref, models["gqa"].geometry, removed=REMOVED)


@pytest.fixture(scope="module")
def outcome(
    engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan, tmp_path_factory: pytest.TempPathFactory
) -> EngineOutcome:
    folder = tmp_path_factory.mktemp("config-only")
    for file in models["gqa"].path.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    settings = {"load_format": "dummy"}
    patches = ("lively_dummy_weights",)
    return engine_host.run(Job(str(folder), plan.model_dump(mode="json"), (Round(PROMPTS),), settings, patches))


def test_it_starts_with_pruned_shapes(outcome: EngineOutcome, plan: PruningPlan, models: dict[str, TinyModel]) -> None:
    assert outcome.failure is None
    assert sum(outcome.kv_bytes.values()) == outcome.blocks * 32 * kv_bytes_per_token(plan, 4)
    geometry = plan.geometry
    heads = (2 * geometry.query_heads + 2 * geometry.kv_heads) * geometry.layers
    full = heads * geometry.head_size * geometry.hidden_size * 4
    kept = sum(
        weight.nbytes for name, weight in outcome.weights.items() if ".self_attn." in name and "vision" not in name
    )
    assert full - kept == weight_bytes_saved(plan, 4) > 0


def test_it_says_what_its_weights_mean(outcome: EngineOutcome, plan: PruningPlan, models: dict[str, TinyModel]) -> None:
    oracle = Oracle(models["gqa"].path)
    put(outcome.weights, oracle.model, plan)
    for prompt, answer in zip(PROMPTS, outcome.answers[0], strict=True):
        assert oracle.difference(prompt, answer, plan) < EXACT
        assert oracle.difference(prompt, answer, PruningPlan.unpruned(plan.model, plan.geometry)) > TELLING


def put(weights: dict[str, np.ndarray], model: torch.nn.Module, plan: PruningPlan) -> None:
    """Overwrite a transformers model's weights with those of a vLLM model, at the places of the heads it kept."""
    state = model.state_dict()
    for name, array in weights.items():
        weight = torch.from_numpy(array)
        ours = name
        for vllm, transformers in (
            ("language_model.model.", "model.language_model."),
            ("language_model.lm_head.", "lm_head."),
            ("vision_tower.vision_model.", "model.vision_tower."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
        ):
            if name.startswith(vllm):
                ours = transformers + name.removeprefix(vllm)
        if "language_model" in ours and ".self_attn." in ours:
            layout = layer_layouts(plan)[int(ours.split(".layers.")[1].split(".")[0])]
            put_attention(ours, weight, state, layout, plan.geometry.head_size)
        elif ".qkv_proj." in ours:
            for part, piece in zip("qkv", weight.chunk(3), strict=True):
                state[ours.replace("qkv_proj", f"{part}_proj")].copy_(piece)
        elif ".gate_up_proj." in ours:
            for part, piece in zip(("gate_proj", "up_proj"), weight.chunk(2), strict=True):
                state[ours.replace("gate_up_proj", part)].copy_(piece)
        else:
            rows = len(state[ours])
            assert len(weight) - rows in range(64)  # vLLM pads vocabularies
            state[ours].copy_(weight[:rows])


def put_attention(
    name: str, weight: torch.Tensor, state: dict[str, torch.Tensor], layout: LayerLayout, head_size: int
) -> None:
    if "o_proj" in name:
        state[name][:, places(layout.full.queries, head_size)] = weight
        return
    heads = (layout.full.queries, layout.full.kv, layout.full.kv)
    sizes = [len(kept) * head_size for kept in heads]
    for part, kept, piece in zip("qkv", heads, weight.split(sizes), strict=True):
        state[name.replace("qkv_proj", f"{part}_proj")][places(kept, head_size)] = piece


def places(heads: tuple[int, ...], head_size: int) -> list[int]:
    return [head * head_size + offset for head in heads for offset in range(head_size)]
