"""Requests with videos, by the families that take them: the engine with a plan against the masked transformers model.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each step, stays below 1e-5.
"""

from pathlib import Path

import pytest
from engine_cases import worst_difference
from engine_host import BLOCK, EngineHost, Job, Round
from engine_prompts import EnginePrompt
from exactness import EXACT, TELLING
from family_plans import mixed_plan, tiny
from tiny_families import FAMILIES, Family

from vhserve.engine.checks.surgery_choice import AskedSurgery

pytestmark = pytest.mark.vllm

VIDEOS = [name for name, family in FAMILIES.items() if family.video]
SHORT = "qwen3-vl"
"""Of these, `make test` runs one: its frames have their times between them."""
FRAMES = {"llava-onevision": 12, "glm-4.1v": 2}
"""Of one video: the former's have 9 tokens each in one run, the latter's share a number of tokens."""
BELOW_A_BLOCK = ("internvl-qwen2", "internvl-qwen3")
"""Whose tiny frames have 16 tokens, so that none fills a block."""
QUESTION = "how many red circles are there ?"


def prompts_of(family: Family) -> tuple[EnginePrompt, ...]:
    """One video; a video and an image; two videos; an image alone. Large enough for whole blocks of embeddings."""
    size, frames = (144, 144), FRAMES.get(family.name, 6)
    alone = (
        EnginePrompt(family.prompt(family.video, QUESTION), (), size, (1,), frames),
        EnginePrompt(family.prompt(None, QUESTION), (2,), size),
    )
    if family.name == "glm-4.1v":  # vLLM takes one video, and transformers no image beside it
        return alone
    return (
        *alone,
        EnginePrompt(family.prompt("what is ", family.video, " and ", None, " ?"), (1,), size, (2,), frames),
        EnginePrompt(family.prompt(family.video, "red ", family.video, QUESTION), (), (96, 60), (2, 1), frames),
    )


@pytest.mark.parametrize("surgery", ["slice", "gather"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == SHORT else [pytest.mark.long]) for name in VIDEOS]
)
def test_videos_are_dropped_as_the_masked_model_does(
    name: str, surgery: AskedSurgery, engine_host: EngineHost, tmp_path: Path
) -> None:
    model, prompts = tiny(name, tmp_path), prompts_of(FAMILIES[name])
    plan = mixed_plan(model)
    rounds = (Round(prompts, tokens=4), Round(prompts[:2], tokens=4, reset=False))
    settings = {"max_model_len": 2048, "max_num_batched_tokens": 96, "max_num_seqs": 4}
    outcome = engine_host.run(Job(str(model.path), plan.model_dump(mode="json"), rounds, settings, surgery=surgery))
    assert outcome.failure is None, outcome.failure[1]
    worst = worst_difference(model.oracle, plan, rounds, outcome.answers)
    print(f"{name}, {surgery}: largest difference {worst:.1e}")
    assert worst < EXACT
    assert all(answer.cached >= BLOCK for answer in outcome.answers[1])
    (first, *_), (answer, *_) = prompts, outcome.answers[0]
    without = mixed_plan(model, partial=False)
    dropped = model.oracle.difference(first, answer, without)
    assert dropped < EXACT if name in BELOW_A_BLOCK else dropped > TELLING, "the video's blocks"
