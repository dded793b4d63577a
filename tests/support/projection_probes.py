"""Which rows of a batch meet which weights of a layer's projections on a device: called by name, by the engine host.

Judges nothing.
"""

from collections import Counter
from typing import Any

from text_only_probes import QUESTION, TEXT, _add, _scheduler


def projected_rows(engine: Any) -> list[dict[str, Any]]:
    """Of each prompt's prefill, and of one step of its reply: rows that met a whole weight, and the others' part of it.

    Counts are by attention layer, projection and part.
    """
    from vhserve.engine.kv_cache.image_spans import image_spans

    assert engine.reset_prefix_cache()
    rows = _count_rows()
    scheduler = _scheduler(engine)
    seen = []
    for number, (text, seeds) in enumerate([(QUESTION, (1,)), (TEXT, ())]):
        _add(engine, f"rows-{number}", text, seeds, tokens=3)
        while not any(request.num_output_tokens for request in scheduler.requests.values()):
            engine.llm_engine.step()
        (request,) = scheduler.requests.values()
        own = {
            "tokens": request.num_prompt_tokens,
            "spans": image_spans(request, scheduler.span_rule),
            "prompt": dict(rows),
        }
        rows.clear()
        engine.llm_engine.step()
        seen.append(own | {"reply": dict(rows)})
        while engine.llm_engine.has_unfinished_requests():
            engine.llm_engine.step()
        rows.clear()
    return seen


def _count_rows() -> Counter[tuple[str, str, str]]:
    from vhserve.engine.weights.weight_views import OutputViews, QKVViews

    rows: Counter[tuple[str, str, str]] = Counter()

    def counted(kind: type, part: str, at: int) -> None:
        stock = getattr(kind, part)

        def call(method: Any, *given: Any) -> Any:
            rows[method.layer_name, method.kind, part] += len(given[at])
            return stock(method, *given)

        setattr(kind, part, call)

    for kind in (QKVViews, OutputViews):
        counted(kind, "stock", 1)
        counted(kind, "by_others", 0)
    return rows
