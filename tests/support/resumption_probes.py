"""What tests of replies that are preempted and find their prompts in the cache do inside an engine. Judges nothing."""

from typing import Any
from unittest.mock import patch

from engine_prompts import EnginePrompt, request
from partial_cases import at
from text_only_probes import TWO, _held, _scheduler

PROMPTS = (EnginePrompt(TWO, (1, 2)), at(10, " how many are there ?"))
"""The second fills its blocks: all of it is found, and what is computed first is of the reply."""
TOKENS, PREEMPTED_AT = 50, 40


def resumed_from_the_cache(engine: Any) -> dict[str, Any]:
    """Preempt all replies in their second block, with their blocks in the cache; and ask the same undisturbed.

    Returns
    -------
    Replies of both, and for each request that came back the tokens of its prompt and those that it found.
    """
    scheduler = _scheduler(engine)
    assert engine.reset_prefix_cache()
    calm = _replies(engine, "calm")
    assert engine.reset_prefix_cache()
    came_back: list[tuple[int, int]] = []
    disturbed = _replies(engine, "disturbed", came_back)
    assert len(scheduler.running) == 0
    return {"calm": calm, "disturbed": disturbed, "came_back": came_back, "held": _held(engine)}


def _replies(engine: Any, name: str, came_back: list[tuple[int, int]] | None = None) -> list[list[int]]:
    from vllm import SamplingParams

    scheduler, wanted = _scheduler(engine), SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    for number, prompt in enumerate(PROMPTS):
        engine.llm_engine.add_request(f"{name}-{number}", request(prompt), wanted)
    replies: dict[str, list[int]] = {}
    while engine.llm_engine.has_unfinished_requests():
        for output in engine.llm_engine.step():
            replies[output.request_id] = list(output.outputs[0].token_ids)
        said = [one.num_output_tokens for one in scheduler.running]
        if came_back == [] and len(said) == len(PROMPTS) and min(said) >= PREEMPTED_AT:
            with patch.object(scheduler.kv_cache_manager, "reset_prefix_cache", lambda: True):
                scheduler.reset_prefix_cache(reset_running_requests=True)
            scheduled = scheduler.schedule()
            for one in scheduler.running:
                found = one.num_computed_tokens - scheduled.num_scheduled_tokens[one.request_id]
                came_back.append((one.num_prompt_tokens, found))
            with patch.object(scheduler, "schedule", return_value=scheduled):
                engine.llm_engine.step()
    return [replies[f"{name}-{number}"] for number in range(len(PROMPTS))]
