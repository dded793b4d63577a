"""Looks at an engine with little KV cache that is asked more than fits at once.

Judges nothing.
"""

import random
from typing import Any

from engine_prompts import EnginePrompt, request
from partial_cases import WORDS
from text_only_probes import _count_preemptions, _held, _scheduler

REQUESTS = 60
LONGEST = 120
"""Limit of a reply, in tokens."""


def crowd(engine: Any) -> dict[str, Any]:
    """Ask for many replies at once, short and long ones; some end by themselves, and some at a limit of their own.

    Every tenth prompt gets two replies. Where priorities count, every third is urgent.
    """
    from vllm import SamplingParams

    rng, scheduler, core = random.Random(1), _scheduler(engine), engine.llm_engine
    before, preempted, counts = _held(engine), _count_preemptions(scheduler), _counts(scheduler)
    has_priorities = engine.llm_engine.vllm_config.scheduler_config.policy == "priority"
    for number in range(REQUESTS):
        words = " ".join(rng.choices(WORDS, k=rng.choice([3, 20, 40])))
        images = (number % 7,) if rng.random() < 0.7 else ()
        prompt = EnginePrompt(f"<s>{'<image> ' * len(images)}{words}", images)
        stop = rng.sample(range(5, 200), 4) if rng.random() < 0.6 else []
        wanted = SamplingParams(
            temperature=float(number % 10 == 0),  # greedy all the same; of greedy sampling vLLM makes one reply only
            top_k=1,
            max_tokens=rng.choice([20, LONGEST, LONGEST]),
            ignore_eos=True,
            stop_token_ids=stop,
            n=1 + (number % 10 == 0),
        )
        core.add_request(str(number), request(prompt), wanted, priority=0 if has_priorities and number % 3 == 0 else 1)
    replies: dict[str, list[tuple[str, list[int]]]] = {}
    held: list[tuple[int, int, int]] = []
    begun = _begun(scheduler)
    while core.has_unfinished_requests():
        for output in core.step():
            if output.finished:
                replies[output.request_id] = [(one.finish_reason, list(one.token_ids)) for one in output.outputs]
        if scheduler._admission is not None:
            holders = scheduler._admission._holders
            running = holders.running()
            held.append((sum(one.held for one in running), holders.used, len(running)))
    return {
        "replies": replies,
        "begun": begun,
        "held": held,
        "groups": len(scheduler.kv_cache_config.kv_cache_groups),
        "preempted": preempted[0],
        "before": before,
        "after": _held(engine),
        "counts": counts,
    }


def _begun(scheduler: Any) -> list[int]:
    """Numbers of requests in the order in which they are scheduled first, from now on."""
    begun: list[int] = []
    stock = scheduler.schedule

    def schedule(*args: Any, **options: Any) -> Any:
        scheduled = stock(*args, **options)
        for one in scheduler.running:
            number = int(one.request_id.rpartition("_")[2].split("-")[0])
            if number not in begun:
                begun.append(number)
        return scheduled

    scheduler.schedule = schedule
    return begun


def _counts(scheduler: Any) -> dict[str, list[int]]:
    """What the scheduler reports with the statistics of each step from now on."""
    counts: dict[str, list[int]] = {}
    if scheduler._admission is not None:
        stock = scheduler._admission.take_counts

        def take_counts() -> Any:
            taken = stock()
            for name, count in taken.items():
                counts.setdefault(name, []).append(count)
            return taken

        scheduler._admission.take_counts = take_counts
    return counts
