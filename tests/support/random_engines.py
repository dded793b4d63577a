"""Random plans, prompts, image places, chunks and pools: an engine for each seed.

Judges nothing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from engine_host import BLOCK, Job, Round
from engine_prompts import EnginePrompt
from oracle import TinyModel
from partial_cases import SIZES, WORDS

from profiles.names import TreatmentName
from profiles.pruning_plan import PruningPlan
from profiles.treatments import FULL, TREATMENTS
from vhserve.engine.checks.admission_choice import Admission
from vhserve.engine.checks.kv_offloading import transfer
from vhserve.engine.kv_cache.capacity import groups_of

PROMPTS = 6
PARTIAL: tuple[tuple[TreatmentName, ...], ...] = (
    ("text_only",),
    ("evict",),
    ("evict", "text_only"),
    ("evict:2", "thinned:2"),
    ("evict:8", "thinned:4"),
    ("evict", "evict:4", "thinned:8"),
    ("evict", "evict:2", "thinned:4", "text_only"),
)
"""Treatments that a plan draws from beside full and removed, a plan each."""

LENGTHS = {"mha": 460, "gqa": 460, "next": 640}
"""For each model more than the longest prompt that may be drawn, and its reply."""


@dataclass(frozen=True)
class RandomEngine:
    model: str
    plan: PruningPlan
    job: Job


def draw_engine(
    seed: int, models: dict[str, TinyModel], *, image_exit: bool = False, offloads: bool = False
) -> RandomEngine:
    """An engine that is asked six prompts cold, and all again with its prefix cache warm.

    Parameters
    ----------
    image_exit
        Whether no head of the last layers sees an image.
    offloads
        Whether blocks go to the host's memory, and the pool forgets them between the two rounds.
    """
    rng = random.Random(seed)
    name = rng.choice(list(LENGTHS))
    model, length = models[name], LENGTHS[name]
    plan = draw_plan(rng, model)
    if image_exit:
        plan = draw_exit(rng, model, plan)
    prompts = tuple(draw_prompt(rng, SIZES if name == "next" else ((72, 72),)) for _ in range(PROMPTS))
    longest = sum(groups_of(plan, BLOCK).of.values()) * -(-length // BLOCK)
    settings = {
        "max_num_batched_tokens": rng.choice([24, 33, 100, 512]),
        "max_num_seqs": rng.choice([1, 4, 8]),
        # From one request of the greatest length and a bit up to several.
        "num_gpu_blocks_override": 1 + round(rng.choice([1.02, 1.2, 1.5, 4]) * longest),  # one is the null block
        "max_model_len": length,
        "async_scheduling": rng.random() < 0.3,
    }
    rounds = (Round(prompts, tokens=rng.choice([2, 20, 70])), Round(prompts, tokens=2, reset=offloads))
    patches: tuple[str, ...] = ("async_scheduling",) if settings["async_scheduling"] else ()
    if offloads:
        # From some blocks up to more than there are.
        settings |= {"kv_offloading_size": rng.choice([0.002, 0.05]), "kv_transfer_config": transfer()}
        patches += ("late_copies",)
    # Most are preempted with stock admission, and none without.
    admission: Admission = "stock" if random.Random(f"admission {seed}").random() < 0.8 else "reckon"
    probe = "offload_probes:offloaded" if offloads else ""
    job = Job(str(model.path), plan.model_dump(mode="json"), rounds, settings, patches, probe, admission=admission)
    return RandomEngine(name, plan, job)


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


def draw_exit(rng: random.Random, model: TinyModel, plan: PruningPlan) -> PruningPlan:
    """A plan of which every head from some layer on is text-only or removed, and one of these is text-only."""
    geometry = model.geometry
    first, size = rng.randrange(geometry.layers), geometry.group_size
    heads = {name: [head for head in plan.heads(name) if head[0] < first] for name in TREATMENTS if name != FULL.name}
    for layer in range(first, geometry.layers):
        for group in range(geometry.kv_heads):
            name = "text_only" if (layer, group) == (first, 0) else rng.choice(["text_only", "text_only", "removed"])
            heads[name] += [(layer, head) for head in range(group * size, (group + 1) * size)]
    return PruningPlan.manual(model.ref, geometry, granularity="kv_group", **heads)


def draw_prompt(rng: random.Random, sizes: Sequence[tuple[int, int]]) -> EnginePrompt:
    parts, images = ["<s>"] if rng.random() < 0.7 else [], []
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        parts += rng.choices(WORDS, k=rng.choice([0, 0, 1, 13, 30, 41]))
        parts.append("<image>")
        images.append(rng.randrange(5))
    parts += rng.choices(WORDS, k=rng.choice([0, 1, 7, 22]) or (not images))
    return EnginePrompt(" ".join(parts), tuple(images), rng.choice(sizes))
