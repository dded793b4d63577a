"""How many requests a KV cache holds at once, counted in the scheduler and KV cache manager of an engine.

Runs in the arm's process. Does not know plans, nor what should fit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.workloads import prompts, sampling, scheduler_of

REPLY_TOKENS: Final = 2
"""Tokens of its reply that a request has when it is set aside: heads that evict let go of images in the step of the
second one."""

LONGEST_REPLY: Final = 6
"""Never reached: where scheduling is async, two more tokens than have come are on their way."""

PATIENCE: Final = 20
"""Steps without a token of a request after which it waits for something other than memory."""


@dataclass(frozen=True)
class Held:
    """What was held when the next request found no room.

    Attributes
    ----------
    requests
        How many there were.
    full
        Whether the next one found no room; else there was none.
    blocks
        Blocks of the pool that each of them held, over all KV cache groups.
    usable, free
        Blocks of the pool without the null block, and those that nobody held when the next request found no room.
    """

    requests: int
    full: bool
    blocks: list[int]
    usable: int
    free: int


@dataclass(frozen=True)
class Capacity:
    """Count requests whose prompt is computed and whose blocks are held.

    Requests are sent one after another, each when the one before is done with its prompt and has `REPLY_TOKENS` tokens
    of its reply. It is then set aside: it keeps its blocks, which the KV cache manager has in its tables, and is not
    scheduled. The count is of those that are set aside when the next request is not admitted, or is preempted, because
    the pool has no blocks for it. So it depends neither on the speed of a machine, nor on the length of replies, nor
    on when outputs arrive, and is the same for an engine with a plan as for stock vLLM. `--watermark` has no part in
    it, as no request runs; an admission that reckons with replies expects at most `LONGEST_REPLY` tokens of each.

    Parameters
    ----------
    limit
        Requests to send at most; no more than `max_num_seqs`.
    """

    limit: int
    images: int
    text_tokens: int
    seed: int = 0

    def run(self, engine: Any) -> Held:
        return count(engine, prompts(self.limit, self.images, self.text_tokens, self.seed))


def count(engine: Any, requests: Iterable[tuple[str, dict[str, Any]]]) -> Held:
    """Count as `Capacity` says, for requests by name."""
    core, scheduler = engine.llm_engine, scheduler_of(engine)
    pool = scheduler.kv_cache_manager.block_pool
    wanted = sampling(LONGEST_REPLY)
    sent, aside, full = [], [], False
    for name, prompt in requests:
        known = set(scheduler.requests)
        core.add_request(name, prompt, wanted)
        sent.append(name)
        (new,) = set(scheduler.requests) - known
        request = scheduler.requests[new]
        if not _begins_reply(core, request):
            full = True
            break
        scheduler.running.remove(request)
        aside.append(request)
    blocks = [_blocks(scheduler, one) for one in aside]
    result = Held(len(aside), full, blocks, pool.num_gpu_blocks - 1, pool.get_num_free_blocks())
    core.abort_request(sent)
    while core.has_unfinished_requests():
        core.step()
    return result


def _begins_reply(core: Any, request: Any) -> bool:
    """Step until a request has the first tokens of its reply; whether there was room for it."""
    idle = 0
    while request.num_output_tokens < REPLY_TOKENS:
        before = request.num_computed_tokens, request.num_output_tokens
        core.step()
        if request.num_preemptions:
            return False
        idle = idle + 1 if (request.num_computed_tokens, request.num_output_tokens) == before else 0
        if idle == PATIENCE:
            if request.num_computed_tokens:
                raise RuntimeError(
                    f"{request.request_id} was not scheduled in {PATIENCE} steps, with blocks of its own"
                )
            return False
    return True


def _blocks(scheduler: Any, request: Any) -> int:
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    return sum(not block.is_null for manager in managers for block in manager.req_to_blocks[request.request_id])
