"""Block tables of workers: columns that a request loses, in both model runners.

Does not know why they are lost. Importing it is cheap.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

_EVICTS: Final = "vhserve_evicts"


def evict_in_workers(vllm_config: Any, evicted: Callable[[Any, Sequence[Any]], Sequence[Sequence[int]]]) -> None:
    """Let workers forget blocks of a request from the first token of its reply on, as their scheduler does; idempotent.

    Symptom
        Replies see image blocks that were freed, and what other requests have written there since.
    Cause
        A worker's block table is append-only: a step names a request's new blocks and not those that it lost.
        Replacing the whole table by `resumed_req_ids` is wrong with async scheduling, and not possible with runner V2.
    Removal
        A step can name blocks that became null.

    Parameters
    ----------
    evicted
        Columns to set to the null block, for each KV cache group, of a `KVCacheConfig` and a request's features.
    """
    if vllm_config.use_v2_model_runner:
        from vllm.v1.worker.gpu.model_runner import GPUModelRunner as RunnerV2

        _evict_in_v2(RunnerV2, evicted)
    else:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        _evict_in_v1(GPUModelRunner, evicted)


def _evict_in_v1(runner_class: Any, evicted: Callable[[Any, Sequence[Any]], Sequence[Sequence[int]]]) -> None:
    stock = runner_class._update_states
    if hasattr(stock, _EVICTS):
        return

    @functools.wraps(stock)
    def update_states(runner: Any, scheduler_output: Any) -> Any:
        corrections = stock(runner, scheduler_output)
        batch = runner.input_batch
        in_reply = batch.num_computed_tokens_cpu[: batch.num_reqs] >= batch.num_prompt_tokens[: batch.num_reqs]
        for row in in_reply.nonzero()[0]:
            state = runner.requests[batch.req_ids[row]]
            # A preempted request comes back with another tuple of blocks.
            if getattr(state, _EVICTS, None) is state.block_ids:
                continue
            setattr(state, _EVICTS, state.block_ids)
            for group, columns in enumerate(evicted(runner.kv_cache_config, state.mm_features)):
                for column in columns:
                    state.block_ids[group][column] = 0  # from where a row is made that was out of the batch
                    batch.block_table[group].block_table.np[row, column] = 0
        return corrections

    setattr(update_states, _EVICTS, True)
    runner_class._update_states = update_states


def _evict_in_v2(runner_class: Any, evicted: Callable[[Any, Sequence[Any]], Sequence[Sequence[int]]]) -> None:
    stock_add, stock_update = runner_class.add_requests, runner_class.update_requests
    if hasattr(stock_update, _EVICTS):
        return

    def add_requests(runner: Any, scheduler_output: Any) -> None:
        # Two staged writes to one place are not ordered, so what is resumed in its reply comes without these blocks.
        for new in scheduler_output.scheduled_new_reqs:
            _done(runner).discard(new.req_id)
            if new.num_computed_tokens >= new.prompt_len:
                _done(runner).add(new.req_id)
                for group, columns in enumerate(evicted(runner.kv_cache_config, new.mm_features)):
                    for column in columns:
                        new.block_ids[group][column] = 0
        stock_add(runner, scheduler_output)

    def update_requests(runner: Any, scheduler_output: Any) -> None:
        stock_update(runner, scheduler_output)
        states, done = runner.req_states, _done(runner)
        done.difference_update(scheduler_output.finished_req_ids)
        cached = scheduler_output.scheduled_cached_reqs
        for name, computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
            if name in done:
                continue
            index = states.req_id_to_index[name]
            # The prompt's own length: what a resumed request has to compute first includes its reply.
            if computed < states.prompt_len.np[index]:
                continue
            done.add(name)
            features = runner.encoder_cache.mm_features.get(name, ())
            for group, columns in enumerate(evicted(runner.kv_cache_config, features)):
                for column in columns:
                    runner.block_tables.block_tables[group].stage_write(index, column, [0])

    def _done(runner: Any) -> set[str]:
        done: set[str] = runner.__dict__.setdefault(_EVICTS, set())
        return done

    setattr(update_requests, _EVICTS, True)
    runner_class.add_requests, runner_class.update_requests = add_requests, update_requests
