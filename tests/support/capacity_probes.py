"""How many requests an engine holds, counted in it by the benchmarks' own counter: called by name, by the engine host.

Judges nothing.
"""

from typing import Any

from engine_prompts import image
from text_only_probes import _held

QUESTION = "<s>USER: is <image><image>\nlike <image> ? yes no yes no yes no yes ASSISTANT:"


def counted(engine: Any) -> dict[str, Any]:
    """What is held at most, twice over, and the state of the pool before and after; and of fewer requests than fit."""
    from benchmarks.capacity_count import count

    requests = [
        (f"held-{number}", {"prompt": QUESTION, "multi_modal_data": {"image": [image(number, (72, 72))] * 3}})
        for number in range(40)
    ]
    before = _held(engine)
    twice = [count(engine, requests), count(engine, requests)]
    few = count(engine, requests[:3])
    return {"twice": twice, "few": few, "before": before, "after": _held(engine)}
