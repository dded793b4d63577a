"""What the tests of CUDA graphs do inside an engine: called by name, by the engine host. Judges nothing."""

import itertools
from typing import Any

from engine_host import Round, ask
from engine_prompts import EnginePrompt
from text_only_probes import _scheduler

TRICKLING = (EnginePrompt("<s>is <image> yes", (1,)), EnginePrompt("<s>what is there ? <image>", (2,)))
"""With an image that goes on, and one that ends the prompt."""


def replays(engine: Any) -> dict[str, int]:
    """Graphs and replays since the engine began to be built."""
    from recorded_graphs import RecordedGraph

    return dict(RecordedGraph.counts)


def trickle(engine: Any) -> dict[str, Any]:
    """Prompts of which most steps compute one token each, as steps of replies do."""
    scheduler = _scheduler(engine)
    stock, tokens = scheduler.schedule, itertools.cycle([40, 1, 1])
    alone = 0

    def schedule(*args: Any, **options: Any) -> Any:
        nonlocal alone
        # vLLM's own limit of a chunk; 0 is none.
        scheduler.scheduler_config.long_prefill_token_threshold = next(tokens)
        in_prompt = [one for one in scheduler.running if one.num_computed_tokens < one.num_prompt_tokens - 1]
        scheduled = stock(*args, **options)
        alone += bool(in_prompt) and scheduled.total_num_scheduled_tokens == len(scheduled.num_scheduled_tokens)
        return scheduled

    scheduler.schedule = schedule
    before = replays(engine)
    answers = ask(engine, Round(TRICKLING, tokens=3))
    scheduler.schedule = stock
    return {"answers": list(zip(TRICKLING, answers, strict=True)), "steps": alone, "before": before, **replays(engine)}
