"""Random plans, prompts, image places, chunks and pools against the masked model; many requests, for leaks."""

import random

import pytest
from engine_cases import worst_difference
from engine_host import BLOCK, EngineHost, EnginePrompt, Job, Round
from exactness import EXACT
from oracle import TinyModel

from profiles.names import TreatmentName
from profiles.pruning_plan import PruningPlan
from vhserve.engine.kv_cache.capacity import groups_of

pytestmark = pytest.mark.vllm

PROMPTS = 6
WORDS = ["how", "many", "red", "blue", "circles", "squares", "yes", "no", "in", "the", "picture"]
PARTIAL: tuple[tuple[TreatmentName, ...], ...] = (
    ("text_only",),
    ("evict",),
    ("evict", "text_only"),
    ("evict:2", "thinned:2"),
    ("evict", "evict:2", "thinned:4", "text_only"),
)
"""Treatments that a plan draws from beside full and removed, a plan each."""


def draw_plan(rng: random.Random, model: TinyModel) -> PruningPlan:
    """Any treatment for each group of query heads that shares a KV head, with at least one partial head."""
    geometry, partial = model.geometry, rng.choice(PARTIAL)
    given: dict[tuple[int, int], TreatmentName] = {}
    for layer in range(geometry.layers):
        every = rng.choice([None, None, None, partial[0], "full", "removed"])
        for group in range(geometry.kv_heads):
            treatment: TreatmentName = every or rng.choice(["full", *partial, *partial, "removed"])
            for head in range(group * geometry.group_size, (group + 1) * geometry.group_size):
                given[layer, head] = treatment
    for head in range(geometry.group_size):
        given[0, head] = partial[0]
    heads = {name: [head for head, own in given.items() if own == name] for name in ("removed", *partial)}
    return PruningPlan.manual(model.ref, geometry, granularity="kv_group", **heads)


def draw_prompt(rng: random.Random) -> EnginePrompt:
    parts, images = ["<s>"] if rng.random() < 0.7 else [], []
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        parts += rng.choices(WORDS, k=rng.choice([0, 0, 1, 13, 30, 41]))
        parts.append("<image>")
        images.append(rng.randrange(5))
    parts += rng.choices(WORDS, k=rng.choice([0, 1, 7, 22]) or (not images))
    return EnginePrompt(" ".join(parts), tuple(images))


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 40))])
def test_random_engines_are_exact(seed: int, engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    """Each engine is asked six prompts cold, and all again with its prefix cache warm: 40 engines, 480 answers."""
    rng = random.Random(seed)
    model = models[rng.choice(["mha", "gqa"])]
    plan = draw_plan(rng, model)
    prompts = tuple(draw_prompt(rng) for _ in range(PROMPTS))
    settings = {
        "max_num_batched_tokens": rng.choice([24, 33, 100, 512]),
        "max_num_seqs": rng.choice([1, 3, 8]),
        # From one request of the greatest length and a bit up to several.
        "num_gpu_blocks_override": round(rng.choice([1.1, 1.5, 4]) * sum(groups_of(plan, BLOCK).of.values()) * 14),
        "max_model_len": 430,  # more than the longest prompt that may be drawn, and its reply
    }
    rounds = (Round(prompts, tokens=rng.choice([2, 5, 40])), Round(prompts, tokens=2, reset=False))
    outcome = engine_host.run(Job(str(model.path), plan.model_dump(mode="json"), rounds, settings))
    assert outcome.failure is None
    worst = worst_difference(model.oracle, plan, rounds, outcome.answers)
    print(f"seed {seed}: largest difference {worst:.1e}")
    assert worst < EXACT


@pytest.mark.parametrize("treatment", ["text_only", "evict"])
@pytest.mark.parametrize("requests", [40, pytest.param(2000, marks=pytest.mark.long)])
def test_requests_leave_nothing_behind(
    requests: int, treatment: TreatmentName, engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    model = models["mha"]
    heads = [(layer, head) for layer in range(6) for head in (1, 2, 4)]
    plan = PruningPlan.manual(model.ref, model.geometry, **{treatment: heads})
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
