"""KV cache managers of a plan with partial heads: block tables stay indexed by position, and image blocks that a head
does not keep are the null block.

Owns allocation, eviction and prefix-cache lookup for these groups. The number of blocks that it predicts is exactly the
number that it then takes from the pool. Does not know heads, lanes or kernels; reads the image spans off the live
request.

Where heads evict, a reply is computed without the image blocks. Its keys and values are of no use to a prompt that
contains it, which sees them; so no group caches blocks of replies, and no lookup reaches into one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from vllm.utils.math_utils import cdiv
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import BlockHashList, KVCacheBlock, resolve_block_hashes
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager, SingleTypeKVCacheManager
from vllm.v1.kv_cache_interface import KVCacheSpec, iter_layer_specs
from vllm.v1.request import Request

from profiles.image_spans import SpanRule
from profiles.treatments import TREATMENTS, ImageBlocks, Phase, Treatment
from vhserve.engine.kv_cache.image_spans import count_kept, image_spans, unseen_blocks

_lookup_request: ContextVar[Request | None] = ContextVar("vhserve_lookup_request", default=None)


@contextmanager
def lookup_for(request: Request) -> Iterator[None]:
    """Set the request whose prefix is looked up; vLLM's lookup is a class method that gets its hashes only."""
    token = _lookup_request.set(request)
    try:
        yield
    finally:
        _lookup_request.reset(token)


def treatment_of(spec: KVCacheSpec) -> Treatment | None:
    """The treatment of a group's heads, by its spec, which may hold one for each layer; None for full heads."""
    layers: list[Any] = list(iter_layer_specs(spec))
    names = {getattr(layer, "treatment", None) for layer in layers}
    name = names.pop() if len(names) == 1 else None
    return None if name is None else TREATMENTS[name]


def span_rule_of(spec: KVCacheSpec) -> SpanRule:
    """The rule of image spans of a group of partial heads, by its spec."""
    bridges = {layer.bridge for layer in iter_layer_specs(spec)}  # type: ignore[attr-defined]  # specs of partial heads
    if len(bridges) > 1:
        raise ValueError(f"{spec} has layers of several plans")
    return SpanRule(bridge=bridges.pop())


class PromptCaching(SingleTypeKVCacheManager):
    """Mixin that caches blocks of the prompt only, where the plan evicts."""

    caches_replies = True

    def cache_blocks(self, request: Request, num_tokens: int, *args: Any, **options: Any) -> None:
        if not self.caches_replies:
            num_tokens = min(num_tokens, request.num_prompt_tokens)
        super().cache_blocks(request, num_tokens, *args, **options)


class FullLaneManager(PromptCaching, FullAttentionManager):
    """Allocates the blocks of full heads that stand beside partial ones."""


class PartialManager(PromptCaching):
    """Allocates blocks for the positions whose keys and values partial heads keep, and frees those that they evict.

    vLLM builds it; `bind_requests` must be called before the first request is scheduled.
    """

    _requests: Mapping[str, Request] | None = None

    def __init__(self, kv_cache_spec: KVCacheSpec, *args: Any, **options: Any) -> None:
        super().__init__(kv_cache_spec, *args, **options)
        treatment = treatment_of(kv_cache_spec)
        if treatment is None:
            raise ValueError(f"{kv_cache_spec} is of no treatment")
        self.treatment = treatment
        self._rule = span_rule_of(kv_cache_spec)
        self._skipped = self._evicted = 0
        self._done: set[str] = set()
        """Requests whose image blocks were evicted, until they are freed."""

    def bind_requests(self, requests: Mapping[str, Request]) -> None:
        """Give the manager the scheduler's live requests, by request id; the mapping is kept, not copied."""
        self._requests = requests

    def take_skipped(self) -> int:
        """Number of image blocks that were not allocated since the last call."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    def take_evicted(self) -> int:
        """Number of image blocks that were freed as prompts had been computed, since the last call."""
        evicted, self._evicted = self._evicted, 0
        return evicted

    def count_blocks(self, request_id: str, num_tokens: int, phase: Phase) -> int:
        """Blocks of the pool that the request holds when so many of its tokens are computed."""
        return self._count(request_id, 0, cdiv(num_tokens, self.block_size), phase)

    def count_held(self, request_id: str) -> int:
        """Blocks of the pool that the request holds."""
        phase: Phase = "reply" if request_id in self._done else "prompt"
        return self._count(request_id, 0, len(self.req_to_blocks.get(request_id, ())), phase)

    def _request(self, request_id: str) -> Request:
        if self._requests is None:
            raise RuntimeError(
                "KV cache groups of partial heads need vhserve's scheduler: "
                "set scheduler_cls to vhserve.engine.scheduler.plan_scheduler"
            )
        return self._requests[request_id]

    def get_num_blocks_to_allocate(
        self,
        request_id: str,
        num_tokens: int,
        new_computed_blocks: Sequence[KVCacheBlock],
        total_computed_tokens: int,
        num_local_computed_tokens: int,
        num_tokens_main_model: int,
        apply_admission_cap: bool = False,
        prefill_end: int = 0,
    ) -> int:
        held = len(self.req_to_blocks.get(request_id, ())) + len(new_computed_blocks)
        needed = self._count(request_id, held, cdiv(num_tokens, self.block_size))
        # A cached block that nobody uses leaves the free list when it is touched.
        return needed + int(self._get_num_evictable_blocks(new_computed_blocks))

    def allocate_new_blocks(self, request_id: str, num_tokens: int, num_tokens_main_model: int) -> list[KVCacheBlock]:
        """Grow the request's table to `num_tokens` tokens; the null blocks are returned too, as workers append."""
        grown = self._grow(request_id, num_tokens)
        self._record(grown)
        return grown

    def _grow(self, request_id: str, num_tokens: int) -> list[KVCacheBlock]:
        table = self.req_to_blocks[request_id]
        first, last = len(table), cdiv(num_tokens, self.block_size)
        if last <= first:
            return []
        needed = self._count(request_id, first, last)
        self._skipped += last - first - needed
        taken = iter(self.block_pool.get_new_blocks(needed))
        unseen = self._unseen(request_id, self.treatment.seen_in_prompt) if needed < last - first else frozenset()
        grown = [self._null_block if index in unseen else next(taken) for index in range(first, last)]
        table.extend(grown)
        return grown

    def _record(self, grown: Sequence[KVCacheBlock]) -> None:
        if self._record_new_block_ids:
            self.new_block_ids.extend(block.block_id for block in grown if not block.is_null)

    def allocate_external_computed_blocks(
        self,
        request_id: str,
        num_local_computed_tokens: int,
        num_external_computed_tokens: int,
        record_for_zeroing: bool = True,
    ) -> None:
        """Grow the request's table by the blocks that are loaded, and by the null blocks among them."""
        if num_external_computed_tokens > 0:
            grown = self._grow(request_id, num_local_computed_tokens + num_external_computed_tokens)
            self._record(grown if record_for_zeroing else ())

    def remove_skipped_blocks(
        self, request_id: str, processed_computed_tokens: int, num_prompt_tokens: int | None = None
    ) -> None:
        """Free image blocks that replies don't see, once the prompt is computed; they stay cached until reused."""
        if not self.treatment.evicts or request_id in self._done or request_id not in self.req_to_blocks:
            return
        if processed_computed_tokens < self._request(request_id).num_prompt_tokens:
            return
        self._done.add(request_id)
        table, freed = self.req_to_blocks[request_id], []
        for index in self._unseen(request_id, self.treatment.seen_in_reply):
            if not table[index].is_null:
                freed.append(table[index])
                table[index] = self._null_block
        self._evicted += len(freed)
        self.block_pool.free_blocks(reversed(freed))  # the last ones are reused first

    def drop_unseen(self, request: Request) -> None:
        """Free blocks behind a request's computed tokens that have become image blocks which heads don't keep."""
        table = self.req_to_blocks.get(request.request_id, [])
        unseen = self._unseen(request.request_id, self.treatment.seen_in_prompt)
        behind = range(cdiv(request.num_computed_tokens, self.block_size), len(table))
        dropped = [index for index in behind if index in unseen and not table[index].is_null]
        self.block_pool.free_blocks([table[index] for index in dropped])
        for index in dropped:
            table[index] = self._null_block
        self._skipped += len(dropped)

    def pop_blocks_for_free(self, request_id: str) -> list[KVCacheBlock]:
        self._done.discard(request_id)
        return super().pop_blocks_for_free(request_id)

    def _count(self, request_id: str, first: int, last: int, phase: Phase = "prompt") -> int:
        if last <= first:  # most steps of most requests
            return 0
        spans = image_spans(self._request(request_id), self._rule)
        return count_kept(spans, first, last, self.block_size, self.treatment.kept(phase))

    def _unseen(self, request_id: str, seen: ImageBlocks) -> frozenset[int]:
        return frozenset(unseen_blocks(image_spans(self._request(request_id), self._rule), self.block_size, seen))

    @classmethod
    def find_longest_cache_hit(
        cls,
        block_hashes: BlockHashList,
        max_length: int,
        kv_cache_group_ids: list[int],
        block_pool: BlockPool,
        kv_cache_spec: KVCacheSpec,
        drop_eagle_block: bool,
        alignment_tokens: int,
        dcp_world_size: int = 1,
        pcp_world_size: int = 1,
    ) -> tuple[tuple[list[KVCacheBlock], ...], int]:
        """Longest prefix whose kept blocks are all cached; blocks that prompts don't keep hit with the null block.

        Whether the image is the same needs no check of its own: hashes are chained and hold the image's hash, so the
        next kept block misses if it differs, and the full heads' groups miss in the image itself.

        Returns
        -------
        Blocks of the prefix for each group of `kv_cache_group_ids`, and its length in tokens.
        """
        request = _lookup_request.get()
        if request is None:
            raise RuntimeError("prefix-cache lookup of partial heads outside `lookup_for`")
        treatment, block_size = treatment_of(kv_cache_spec), kv_cache_spec.block_size
        if treatment is None:
            raise ValueError(f"{kv_cache_spec} is of no treatment")
        if treatment.evicts:
            # What is behind may be cached as part of another prompt, which saw the image.
            max_length = min(max_length, request.num_prompt_tokens)
        spans = image_spans(request, span_rule_of(kv_cache_spec))
        unseen = frozenset(unseen_blocks(spans, block_size, treatment.seen_in_prompt))
        hashes = resolve_block_hashes(block_hashes, block_pool.hash_block_size, block_size)
        hits: tuple[list[KVCacheBlock], ...] = tuple([] for _ in kv_cache_group_ids)
        nulls = [block_pool.null_block] * len(hits)
        for index in range(min(max_length // block_size, len(hashes))):
            found = nulls
            if index not in unseen:
                cached = block_pool.get_cached_block(hashes[index], kv_cache_group_ids)
                if cached is None:
                    break
                found = cached
            for blocks, block in zip(hits, found, strict=True):
                blocks.append(block)
        length = len(hits[0]) - (1 if drop_eagle_block and hits[0] else 0)
        while length * block_size % alignment_tokens:
            length -= 1
        for blocks in hits:
            del blocks[length:]
        return hits, length * block_size


def bind(kv_cache_manager: KVCacheManager, requests: Mapping[str, Request]) -> None:
    """Give the managers of an engine's groups the scheduler's live requests, before the first is scheduled."""
    managers = kv_cache_manager.coordinator.single_type_managers
    evicts = any(manager.treatment.evicts for manager in partial_managers(kv_cache_manager))
    for manager in managers:
        if isinstance(manager, PromptCaching):
            manager.caches_replies = not evicts
        if isinstance(manager, PartialManager):
            manager.bind_requests(requests)


def partial_managers(kv_cache_manager: KVCacheManager) -> list[PartialManager]:
    """Managers of an engine's groups of partial heads, in the order of the groups; empty without any."""
    managers = kv_cache_manager.coordinator.single_type_managers
    return [manager for manager in managers if isinstance(manager, PartialManager)]
