"""Random plans, prompts, image places, chunks and pools against the masked model; many requests, for leaks."""

import random

import pytest
from engine_cases import worst_difference
from engine_host import EngineHost, EnginePrompt, Job, Round
from exactness import EXACT
from oracle import TinyModel

from profiles.names import TreatmentName
from profiles.pruning_plan import PruningPlan

pytestmark = pytest.mark.vllm

PROMPTS = 6
WORDS = ["how", "many", "red", "blue", "circles", "squares", "yes", "no", "in", "the", "picture"]
TREATMENTS: tuple[TreatmentName, ...] = ("full", "text_only", "text_only", "removed")


def draw_plan(rng: random.Random, model: TinyModel) -> PruningPlan:
    """Any treatment for each group of query heads that shares a KV head, with at least one text-only head."""
    geometry = model.geometry
    given: dict[tuple[int, int], TreatmentName] = {}
    for layer in range(geometry.layers):
        every = rng.choice([None, None, None, "text_only", "full", "removed"])
        for group in range(geometry.kv_heads):
            treatment: TreatmentName = every or rng.choice(TREATMENTS)
            for head in range(group * geometry.group_size, (group + 1) * geometry.group_size):
                given[layer, head] = treatment
    for head in range(geometry.group_size):
        given[0, head] = "text_only"
    return PruningPlan.manual(
        model.ref,
        geometry,
        removed=[head for head, treatment in given.items() if treatment == "removed"],
        text_only=[head for head, treatment in given.items() if treatment == "text_only"],
        granularity="kv_group",
    )


def draw_prompt(rng: random.Random) -> EnginePrompt:
    parts, images = ["<s>"] if rng.random() < 0.7 else [], []
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        parts += rng.choices(WORDS, k=rng.choice([0, 0, 1, 13, 30, 41]))
        parts.append("<image>")
        images.append(rng.randrange(5))
    parts += rng.choices(WORDS, k=rng.choice([0, 1, 7, 22]) or (not images))
    return EnginePrompt(" ".join(parts), tuple(images))


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 34))])
def test_random_engines_are_exact(seed: int, engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    """Each engine is asked six prompts cold, and all again with its prefix cache warm: 34 engines, 408 answers."""
    rng = random.Random(seed)
    model = models[rng.choice(["mha", "gqa"])]
    plan = draw_plan(rng, model)
    prompts = tuple(draw_prompt(rng) for _ in range(PROMPTS))
    settings = {
        "max_num_batched_tokens": rng.choice([24, 33, 100, 512]),
        "max_num_seqs": rng.choice([1, 3, 8]),
        "num_gpu_blocks_override": rng.choice([60, 90, 200]) * 2,
        "max_model_len": 400,  # more than the longest prompt that may be drawn
    }
    rounds = (Round(prompts, tokens=rng.choice([2, 5])), Round(prompts, tokens=2, reset=False))
    outcome = engine_host.run(Job(str(model.path), plan.model_dump(mode="json"), rounds, settings))
    assert outcome.failure is None
    worst = worst_difference(model.oracle, plan, rounds, outcome.answers)
    print(f"seed {seed}: largest difference {worst:.1e}")
    assert worst < EXACT


@pytest.mark.parametrize("requests", [40, pytest.param(2000, marks=pytest.mark.long)])
def test_requests_leave_nothing_behind(requests: int, engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    model = models["mha"]
    plan = PruningPlan.manual(
        model.ref, model.geometry, text_only=[(layer, head) for layer in range(6) for head in (1, 2, 4)]
    )
    settings = {"num_gpu_blocks_override": 58, "max_model_len": 352}
    job = Job(
        str(model.path),
        plan.model_dump(mode="json"),
        (),
        settings,
        probe=f"text_only_probes:many_requests_{requests}",
    )
    outcome = engine_host.run(job)
    assert outcome.failure is None
    probed = outcome.probed
    assert probed["after"] == probed["before"]
    assert probed["after"]["free"] == probed["after"]["blocks"] - 1
    assert probed["reset"]
    assert probed["aborted"] > 0
    assert probed["preempted"] > 0
    early, late = probed["memory"]
    if requests >= 2000:
        assert late < 1.02 * early
