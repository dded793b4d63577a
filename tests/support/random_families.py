"""A random engine of a family for each seed: surgery, plan, means, prompts with several pictures, chunks.

Judges nothing.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from engine_host import Job, Round
from engine_prompts import EnginePrompt
from oracle import TinyModel
from partial_cases import WORDS
from random_engines import draw_plan
from tiny_families import FAMILIES, Family

from profiles.pruning_plan import Compensation, PruningPlan
from vhserve.engine.checks.surgery_choice import AskedSurgery

PROMPTS = 4
SIZES = ((144, 144), (192, 120))
SURGERIES: tuple[AskedSurgery, ...] = ("slice", "gather")


@dataclass(frozen=True)
class RandomFamilyEngine:
    family: str
    model: TinyModel
    plan: PruningPlan
    job: Job


def draw_family_engine(seed: int, make: Callable[[str], TinyModel]) -> RandomFamilyEngine:
    """An engine that is asked four prompts, cold and with its prefix cache warm; `make` gives a family's tiny model."""
    rng = random.Random(seed)
    name = rng.choice(sorted(FAMILIES))
    model = make(name)
    plan = _with_means(rng, draw_plan(rng, model))
    prompts = tuple(_prompt(rng, FAMILIES[name]) for _ in range(PROMPTS))
    settings = {
        "max_model_len": 2048,
        "max_num_batched_tokens": rng.choice([33, 96, 512]),
        "max_num_seqs": rng.choice([1, 4]),
    }
    rounds = (Round(prompts, tokens=rng.choice([2, 6])), Round(prompts, tokens=2, reset=False))
    job = Job(str(model.path), plan.model_dump(mode="json"), rounds, settings, surgery=rng.choice(SURGERIES))
    return RandomFamilyEngine(name, model, plan, job)


def _with_means(rng: random.Random, plan: PruningPlan) -> PruningPlan:
    """The plan, with mean outputs of its removed heads in half of all cases."""
    if rng.random() < 0.5 or not plan.uncomputed:
        return plan
    shape = (len(plan.uncomputed), plan.geometry.head_size)
    means = np.random.default_rng(rng.randrange(1 << 30)).normal(size=shape).astype(np.float32)
    return plan.model_copy(update={"compensation": Compensation(method="mean", means=means)})


def _prompt(rng: random.Random, family: Family) -> EnginePrompt:
    parts: list[str | None] = []
    images = []
    for _ in range(rng.choice([0, 1, 1, 2])):
        parts += [f"{' '.join(rng.choices(WORDS, k=rng.choice([1, 13, 30])))} ", None]
        images.append(rng.randrange(5))
    parts.append(f" {' '.join(rng.choices(WORDS, k=rng.choice([1, 7, 22])))} ?")
    return EnginePrompt(family.prompt(*parts), tuple(images), rng.choice(SIZES))
