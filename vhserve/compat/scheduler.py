"""The scheduler and its KV cache managers: look-up of prefixes, admission, ends of chunks and of requests, image data,
counts of a step.

Does not know plans or treatments. Importing it is cheap.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

_COUNTS: Final = "vhserve:"


def around_prefix_lookup(kv_cache_manager: Any, enter: Callable[[Any], AbstractContextManager[None]]) -> None:
    """Run every prefix-cache lookup of a KV cache manager in the context `enter(request)`.

    Symptom
        A group's `find_longest_cache_hit` has no access to the request's image positions.
    Cause
        It is a class method whose arguments are the request's block hashes and not the request.
    Removal
        vLLM passes the request to `find_longest_cache_hit`.

    The method is replaced on the instance, because the scheduler calls it in more than one place.
    """
    stock = kv_cache_manager.get_computed_blocks

    def get_computed_blocks(request: Any, *rest: Any, **named: Any) -> Any:  # vLLM 0.33 gives the longest hit, too
        with enter(request):
            return stock(request, *rest, **named)

    kv_cache_manager.get_computed_blocks = get_computed_blocks


def end_chunks_early(scheduler: Any, limit: Callable[[Any, int, int], int]) -> None:
    """Let a scheduler compute at most `limit(request, computed tokens, tokens)` tokens of a request in a step.

    Symptom
        A step computes the end of a prompt and tokens of its reply, as one chunk, when a request is computed anew.
    Cause
        Chunks end where the budget of a step does, or where a draft model needs them to.
    Removal
        vLLM has a hook for where chunks may end.

    The method that is wrapped is called for every request that is scheduled, after its images are chosen.
    """
    stock = scheduler._reserve_prefill_lookahead

    def reserve(request: Any, num_computed_tokens: int, num_new_tokens: int) -> int:
        return limit(request, num_computed_tokens, stock(request, num_computed_tokens, num_new_tokens))

    scheduler._reserve_prefill_lookahead = reserve


def around_admission(kv_cache_manager: Any, admits: Callable[[Any, Any], bool]) -> None:
    """Give a waiting request blocks only if `admits(request, blocks of its cached prefix)`, unless nothing runs.

    Symptom
        Requests are preempted, and computed anew, when those beside them have grown.
    Cause
        A waiting request is given blocks if there are as many as its prompt needs, whatever replies will need. There is
        no hook; the scheduler takes None of `allocate_slots` to mean that the request, and those behind it, must wait.
    Removal
        vLLM has a hook for admission, or reckons with replies itself.

    The method is replaced on the instance. It is called for running requests, too, which pass.
    """
    from vllm.v1.request import RequestStatus

    stock = kv_cache_manager.allocate_slots

    def allocate_slots(request: Any, *args: Any, **named: Any) -> Any:
        is_waiting = request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)
        if is_waiting and named["has_scheduled_reqs"] and not admits(request, named["new_computed_blocks"]):
            return None
        return stock(request, *args, **named)

    kv_cache_manager.allocate_slots = allocate_slots


def at_request_end(scheduler: Any, ended: Callable[[Any], None]) -> None:
    """Call `ended(request)` when a request ends, by itself or not, before its blocks are freed.

    Symptom
        A scheduler's subclass doesn't see how long replies were.
    Cause
        They end inside of `update_from_output`, and aborted ones elsewhere; what both call is not public.
    Removal
        vLLM has a hook for the end of a request.
    """
    stock = scheduler._free_request

    def free_request(request: Any, *args: Any, **named: Any) -> Any:
        ended(request)
        return stock(request, *args, **named)

    scheduler._free_request = free_request


def at_session_update(scheduler: Any, updated: Callable[[Any], None]) -> None:
    """Call `updated(request)` when a session's input has gone on after a reply, before anything of it is scheduled.

    Symptom
        Blocks that were taken for a reply's next token hold an image's, and groups that drop its blocks keep them.
    Cause
        A reply's end is known after its next step has been scheduled, with async scheduling, or drafts behind it. The
        session keeps the block, and begins with its next input there, of which managers are not told.
    Removal
        vLLM gives back what is behind a session's computed tokens.

    The method is replaced on the instance.
    """
    stock = scheduler._update_request_as_session

    def update_request_as_session(session: Any, update: Any) -> None:
        stock(session, update)
        updated(session)

    scheduler._update_request_as_session = update_request_as_session


def keep_image_data() -> None:
    """Send the workers all images of a new request, even those whose tokens its prefix hit covers; idempotent.

    Symptom
        `RuntimeError: Encoder cache miss`, which ends the engine, when a request is preempted and finds less of its
        prefix cached than when it began. In vLLM without a plan too, and likelier where image blocks are freed early.
    Cause
        The scheduler strips the pixels of images inside the first prefix hit, and Model Runner V1 has none to encode
        when the next hit is shorter.
    Removal
        vLLM sends the pixels again when a request is resumed, or does not strip them.
    """
    import vllm.v1.core.sched.output

    def unstripped(mm_features: Any, *args: Any, **options: Any) -> Any:
        return mm_features

    output: Any = vllm.v1.core.sched.output
    output.strip_covered_mm_data = unstripped


def register_stock_kv_cache_specs() -> None:
    """Register vLLM's own KV cache specs, so that others can be registered beside them.

    Symptom
        `No manager registered for KVCacheSpec` of vLLM's own `FullAttentionSpec`.
    Cause
        vLLM registers its own specs on first use, but only in an empty registry: never after a plugin's.
    Removal
        vLLM registers its own specs when the registry is imported, or in a registry that is not empty.
    """
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs

    register: Any = register_all_kvcache_specs  # untyped
    register(None)


def put_counts(scheduler_stats: Any, counts: dict[str, int]) -> None:
    """Add an engine's own counts to the statistics of a step, which go to the API server; `take_counts` removes them.

    Symptom
        Numbers that a scheduler puts into its statistics do not arrive.
    Cause
        `SchedulerStats` is a dataclass that is decoded field by field, without a field for extensions. Its fields for
        connectors are free, but vLLM's logger fails on them where no connector is set. The requests waiting by LoRA
        adapter are a mapping of names to numbers, whose readers see it after `take_counts`.
    Removal
        `SchedulerStats` gets a field that extensions may fill.
    """
    scheduler_stats.waiting_lora_adapters.update({f"{_COUNTS}{name}": count for name, count in counts.items() if count})


def take_counts(scheduler_stats: Any) -> dict[str, int]:
    """Remove the counts that `put_counts` added to a step's statistics, and return them by name."""
    adapters = scheduler_stats.waiting_lora_adapters
    return {name.removeprefix(_COUNTS): adapters.pop(name) for name in list(adapters) if name.startswith(_COUNTS)}
