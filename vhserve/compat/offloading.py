"""vLLM's offloading connector: what its scheduler's part takes for granted of blocks, and whose its blocks are.

Does not know plans, treatments or images. Importing it is cheap.
"""

from collections.abc import Callable, Collection
from typing import Any


def salt_block_hashes(request: Any, salt: str) -> None:
    """Key the hashes of a request's blocks by `salt`, beside the salt that its client gave it, if any.

    Symptom
        An engine loads blocks that another one stored, with another plan or with none, and answers from them.
    Cause
        Blocks are hashed by what their tokens and pictures are, and by nothing of what computed them; the seed is the
        same in every engine. Only requests can be told apart, by their salts.
    Removal
        vLLM hashes something of its configuration's into the hashes of blocks.

    Call it once, before any block of the request is looked up. The salt goes into the first block's hash and from
    there into all; of a request, because the seed is one for all engines of a process.
    """
    own = request.cache_salt
    request.cache_salt = salt if own is None else f"{salt} {own}"
    request.block_hashes.clear()
    request.update_block_hashes()


def as_full_attention(kv_cache_config: Any, is_partial: Callable[[Any], bool], own_fields: Collection[str]) -> Any:
    """A copy of a `KVCacheConfig` for the connector, in which specs that it does not know are full ones.

    Parameters
    ----------
    is_partial
        Whether a layer's spec is to be replaced.
    own_fields
        Fields of such specs that a full one has not.

    Symptom
        An `AssertionError` without a text as the engine starts.
    Cause
        The connector sorts groups into full attention, sliding windows and states, by the class of their spec, and
        knows no other; with 0.32 its scheduler's part does, with 0.33 the worker's too.
    Removal
        It asks a spec's manager which blocks may be missing.
    """
    from dataclasses import replace

    from vllm.v1.kv_cache_interface import FullAttentionSpec, UniformTypeKVCacheSpecs, replace_as

    def known(spec: Any) -> Any:
        if isinstance(spec, UniformTypeKVCacheSpecs):  # in workers, where a group's layers have several sizes
            return replace(spec, kv_cache_specs={name: known(one) for name, one in spec.kv_cache_specs.items()})
        return replace_as(spec, FullAttentionSpec, drop=own_fields) if is_partial(spec) else spec

    groups = [replace(group, kv_cache_spec=known(group.kv_cache_spec)) for group in kv_cache_config.kv_cache_groups]
    return replace(kv_cache_config, kv_cache_groups=groups)


def pass_over_gaps(scheduler: Any, gaps: Callable[[Any, int], Collection[int]]) -> None:
    """Let a connector's scheduler find and load prefixes of which some groups keep only part of the blocks.

    Parameters
    ----------
    scheduler
        An `OffloadingConnectorScheduler` whose chunks are single blocks.
    gaps
        Indices of the blocks that a request does not keep in a group, by the request and the group's index.

    Symptom
        Prefixes end where a group keeps no block; or `AssertionError: Chunk … not found in cache`, which ends the
        engine.
    Cause
        The scheduler stores no null block, but expects every block of a prefix to be stored, and loads all from the
        first that is not null.
    Removal
        The connector's scheduler lets a spec's manager say which blocks may be missing.

    The methods are replaced on the instance. For a load the null blocks are put in front of the others, and their keys
    with them; a block is loaded from the chunk whose key stands in the same place, wherever that is.
    """
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks

    stock_lookup, stock_load = scheduler._maximal_prefix_lookup, scheduler.update_state_after_alloc

    def lookup(keys: Any, req_context: Any, req: Any, group_config: Any, start_chunk_idx: int) -> int | None:
        missing = gaps(req, group_config.group_idx)
        hits, deferred = 0, False
        for index, key in enumerate(keys, start_chunk_idx):
            found = 1 if index in missing else stock_lookup([key], req_context, req, group_config, index)
            if found == 0:
                break
            deferred |= found is None
            hits += 1
        return None if deferred else hits

    def update_state_after_alloc(request: Any, blocks: Any, num_external_tokens: int) -> None:
        if num_external_tokens == 0:  # 0.33 notes the blocks all the same
            stock_load(request, blocks, num_external_tokens)
            return
        status = scheduler._req_status[request.request_id]
        computed = status.num_locally_computed_tokens
        found = computed + num_external_tokens
        tables, keys = list(blocks.blocks), [state.offload_keys for state in status.group_states]
        for config, state in zip(scheduler.config.kv_group_configs, status.group_states, strict=True):
            table = tables[config.group_idx]
            first, last = (-(-tokens // config.tokens_per_block) for tokens in (computed, found))
            order = sorted(range(first, last), key=lambda index: not table[index].is_null)
            tables[config.group_idx] = [*table[:first], *(table[index] for index in order), *table[last:]]
            own = state.offload_keys
            state.offload_keys = [*own[:first], *(own[index] for index in order), *own[last:]]
        try:
            stock_load(request, KVCacheBlocks(tuple(tables)), num_external_tokens)
        finally:
            for state, own in zip(status.group_states, keys, strict=True):
                state.offload_keys = own

    scheduler._maximal_prefix_lookup = lookup
    scheduler.update_state_after_alloc = update_state_after_alloc


def follow_evictions(scheduler: Any, evicted: Callable[[Any, int], Collection[int]]) -> None:
    """Let a connector's scheduler know that blocks of running requests are freed once their prompts are computed.

    Parameters
    ----------
    evicted
        Indices of those blocks, by the request and the group's index.

    Symptom
        What another request writes is stored, and loaded, as blocks of the one that they were taken from.
    Cause
        The scheduler takes blocks of full attention for the request's until it ends: it lets a store that could not be
        made at once be made later, and has workers wait for one that runs only when the request has ended.
    Removal
        With `pass_over_gaps`.
    """
    stock_update, stock_stores = scheduler._update_req_states, scheduler._build_store_jobs

    def update_req_states(scheduler_output: Any) -> None:
        stock_update(scheduler_output)
        for status in scheduler._req_status.values():
            request = status.req
            if request.num_computed_tokens < request.num_prompt_tokens:
                continue
            for config, state in zip(scheduler.config.kv_group_configs, status.group_states, strict=True):
                unstored = range(state.next_stored_chunk_idx, len(state.block_ids))
                if state.next_stored_chunk_idx < request.num_prompt_tokens // config.tokens_per_chunk:
                    for index in evicted(request, config.group_idx):
                        if index in unstored:
                            state.block_ids[index] = 0

    def build_store_jobs(scheduler_output: Any) -> Any:
        jobs = stock_stores(scheduler_output)
        for name in jobs:
            job = scheduler._jobs[name]
            blocks = job.deferred_fence_block_ids or []
            for block in blocks:
                scheduler._block_id_to_pending_jobs.setdefault(block, set()).add(name)
            job.fenced_block_ids, job.deferred_fence_block_ids = [*(job.fenced_block_ids or ()), *blocks], None
        return jobs

    scheduler._update_req_states = update_req_states
    scheduler._build_store_jobs = build_store_jobs
