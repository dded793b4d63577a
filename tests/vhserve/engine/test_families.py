"""Every family with a plan: sliced where it can be, and gathered, against the masked transformers model.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each step, stays below 1e-5.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from engine_cases import worst_difference
from engine_host import EngineHost, Job, Round
from exactness import EXACT, TELLING
from family_plans import mixed_plan, tiny
from tiny_families import FAMILIES

from vhserve.engine.checks.surgery_choice import AskedSurgery

pytestmark = pytest.mark.vllm

SHORT = "qwen3-vl"
"""Of these, `make test` runs one."""


@pytest.mark.parametrize("surgery", ["slice", "gather"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == SHORT else [pytest.mark.long]) for name in FAMILIES]
)
def test_a_family_with_a_plan_says_what_the_masked_model_says(
    name: str, surgery: AskedSurgery, engine_host: EngineHost, tmp_path: Path
) -> None:
    model = tiny(name, tmp_path)
    # Large enough for whole blocks of image tokens, where their number follows the picture's size.
    prompts = [
        replace(one, image_size=(2 * one.image_size[0], 2 * one.image_size[1])) for one in FAMILIES[name].prompts
    ]
    plan = mixed_plan(model)
    rounds = (Round(tuple(prompts), tokens=4), Round(tuple(prompts[:2]), tokens=4, reset=False))
    settings = {"max_model_len": 2048, "max_num_batched_tokens": 96, "max_num_seqs": 4}
    outcome = engine_host.run(Job(str(model.path), plan.model_dump(mode="json"), rounds, settings, surgery=surgery))
    assert outcome.failure is None, outcome.failure[1]
    worst = worst_difference(model.oracle, plan, rounds, outcome.answers)
    print(f"{name}, {surgery}: largest difference {worst:.1e}")
    assert worst < EXACT
    without = mixed_plan(model, partial=False)
    assert worst_difference(model.oracle, without, rounds, outcome.answers) > TELLING, "no image block is dropped"
