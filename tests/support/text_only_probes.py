"""What the tests of text-only heads do inside an engine, beyond asking it: called by name, by the engine host.

Each takes a `vllm.LLM` and returns plain values. Knows vLLM's scheduler and block pool; judges nothing.
"""

import random
from typing import Any

from engine_prompts import image

QUESTION = "<s>USER: <image>\nhow many red circles are there ? ASSISTANT:"
TWO = "<s>USER: is <image> like <image> ? yes no ASSISTANT:"
TEXT = "<s>USER: how many blue squares are there in the picture ? ASSISTANT:"


def _scheduler(engine: Any) -> Any:
    return engine.llm_engine.engine_core.engine_core.scheduler


def _add(engine: Any, name: str, text: str, seeds: tuple[int, ...], tokens: int) -> None:
    from vllm import SamplingParams

    prompt: dict[str, Any] = {"prompt": text}
    if seeds:
        prompt["multi_modal_data"] = {"image": [image(seed, (72, 72)) for seed in seeds]}
    wanted = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    engine.llm_engine.add_request(name, prompt, wanted)


def _held(engine: Any) -> dict[str, Any]:
    """State of the pool and of every manager; at rest, everything is free and nothing is remembered."""
    scheduler = _scheduler(engine)
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    pool = scheduler.kv_cache_manager.block_pool
    return {
        "blocks": pool.num_gpu_blocks,
        "free": pool.get_num_free_blocks(),
        "requests": len(scheduler.requests),
        "tables": sum(len(manager.req_to_blocks) for manager in managers),
        "cached": sum(len(manager.num_cached_block) for manager in managers),
        "evicted": sum(len(getattr(manager, "_done", ())) for manager in managers),
        "deferred": len(getattr(scheduler, "deferred_frees", ())),
    }


def block_tables(engine: Any) -> dict[str, Any]:
    """Tables of some prompts after prefill, what each group is, and how many tokens got the full heads' part only."""
    from vhserve.engine.kv_cache.image_spans import image_spans
    from vhserve.engine.kv_cache.spec import count_groups, treatment_name

    assert engine.reset_prefix_cache()
    dropped = _count_dropped()
    scheduler = _scheduler(engine)
    config = scheduler.kv_cache_config
    seen = {}
    for number, (text, seeds) in enumerate([(QUESTION, (1,)), (TWO, (1, 2)), (TEXT, ()), ("<image>\nyes", (3,))]):
        before = _held(engine)["free"]
        _add(engine, f"table-{number}", text, seeds, tokens=8)
        while not any(request.num_output_tokens for request in scheduler.requests.values()):
            engine.llm_engine.step()
        ((name, request),) = scheduler.requests.items()
        seen[number] = {
            "tokens": request.num_prompt_tokens,
            "spans": image_spans(request, scheduler.span_rule),
            "tables": scheduler.kv_cache_manager.get_block_ids(name),
            "taken": before - _held(engine)["free"],
            "dropped": dict(dropped),
        }
        dropped.clear()
        while engine.llm_engine.has_unfinished_requests():
            engine.llm_engine.step()
    layers = engine.llm_engine.vllm_config.compilation_config.static_forward_context
    return {
        "requests": seen,
        "treatments": [treatment_name(group.kv_cache_spec) for group in config.kv_cache_groups],
        "heads": [sum(layers[name].num_kv_heads for name in group.layer_names) for group in config.kv_cache_groups],
        "groups": dict(count_groups(config).of),
        "held": _held(engine),
    }


def _count_dropped() -> dict[tuple[str, str], int]:
    """Tokens that did not meet the last heads' weights, by layer and projection, from now on."""
    from vhserve.engine.weights.dropped_tokens import DroppedTokensLinear
    from vhserve.engine.weights.packed_parts import PackedParts

    counts: dict[tuple[str, str], int] = {}
    by_lasts, project = PackedParts.by_lasts, DroppedTokensLinear.project

    def counted_lasts(method: PackedParts, x: Any) -> Any:
        counts[method.layer_name, method.kind] -= len(x)
        return by_lasts(method, x)

    def all_tokens(method: DroppedTokensLinear, x: Any, bias: Any) -> Any:
        counts[method.layer_name, method.kind] = counts.get((method.layer_name, method.kind), 0) + len(x)
        return project(method, x, bias)

    PackedParts.by_lasts = counted_lasts  # type: ignore[method-assign]
    DroppedTokensLinear.project = all_tokens  # type: ignore[method-assign]
    return counts


def abort_in_every_state(engine: Any) -> dict[str, Any]:
    """Abort waiting, prefilling, decoding and preempted requests; then what is left."""
    scheduler = _scheduler(engine)
    assert engine.reset_prefix_cache()
    before = _held(engine)
    preempted = _count_preemptions(scheduler)
    for number in range(12):
        _add(
            engine, f"abort-{number}", *[(QUESTION, (number % 3,)), (TWO, (1, number % 2)), (TEXT, ())][number % 3], 90
        )
    aborted: dict[str, int] = {}
    step = 0
    while engine.llm_engine.has_unfinished_requests():
        engine.llm_engine.step()
        step += 1
        if step in (2, 9, 30, 45, 60, 75, 90):
            victims = {request.status.name: name for name, request in scheduler.requests.items()}
            for status, name in victims.items():
                aborted[status] = aborted.get(status, 0) + 1
                engine.llm_engine.abort_request([name], internal=True)
    return {"before": before, "after": _held(engine), "aborted": aborted, "preempted": preempted[0]}


def many_requests_40(engine: Any) -> dict[str, Any]:
    return _many_requests(engine, 40)


def many_requests_2000(engine: Any) -> dict[str, Any]:
    return _many_requests(engine, 2000)


def _many_requests(engine: Any, total: int) -> dict[str, Any]:
    """Random requests, some of them aborted, through a pool that is too small for them."""
    import psutil

    scheduler = _scheduler(engine)
    rng = random.Random(7)
    assert engine.reset_prefix_cache()
    before, preempted = _held(engine), _count_preemptions(scheduler)
    started = aborted = 0
    memory: list[int] = []
    while started < total or engine.llm_engine.has_unfinished_requests():
        while started < total and len(scheduler.requests) < 10:
            text, count = rng.choice([(QUESTION, 1), (TWO, 2), (TEXT, 0), ("<image><image><image>\nyes", 3)])
            seeds = tuple(rng.randrange(6) for _ in range(count))
            _add(engine, f"many-{started}", text, seeds, tokens=rng.randint(1, 50))
            started += 1
            if started in (total // 4, total):
                memory.append(psutil.Process().memory_info().rss)
        engine.llm_engine.step()
        if rng.random() < 0.08 and scheduler.requests:
            engine.llm_engine.abort_request([rng.choice(list(scheduler.requests))], internal=True)
            aborted += 1
    return {
        "before": before,
        "after": _held(engine),
        "aborted": aborted,
        "preempted": preempted[0],
        "memory": memory,
        "reset": engine.reset_prefix_cache(),
    }


def _count_preemptions(scheduler: Any) -> list[int]:
    count, stock = [0], scheduler._preempt_request

    def preempt(*args: Any, **options: Any) -> Any:
        count[0] += 1
        return stock(*args, **options)

    scheduler._preempt_request = preempt
    return count
