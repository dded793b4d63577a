"""The KV cache manager of text-only groups: block tables stay indexed by position, image blocks are the null block.

Owns allocation and prefix-cache lookup for these groups. The number of blocks that it predicts is exactly the number
that it then takes from the pool. Does not know heads, lanes or kernels; reads the image spans off the live request.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from vllm.utils.math_utils import cdiv
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import BlockHashList, KVCacheBlock, resolve_block_hashes
from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager
from vllm.v1.kv_cache_interface import KVCacheSpec
from vllm.v1.request import Request

from vhserve.engine.kv_cache.image_spans import count_text_blocks, image_spans, is_image_block

_lookup_request: ContextVar[Request | None] = ContextVar("vhserve_lookup_request", default=None)


@contextmanager
def lookup_for(request: Request) -> Iterator[None]:
    """Set the request whose prefix is looked up; vLLM's lookup is a class method that gets its hashes only."""
    token = _lookup_request.set(request)
    try:
        yield
    finally:
        _lookup_request.reset(token)


class TextOnlyManager(SingleTypeKVCacheManager):
    """Allocates blocks for the positions whose keys and values text-only heads keep.

    vLLM builds it; `bind_requests` must be called before the first request is scheduled.
    """

    _requests: Mapping[str, Request] | None = None
    _skipped = 0

    def bind_requests(self, requests: Mapping[str, Request]) -> None:
        """Give the manager the scheduler's live requests, by request id; the mapping is kept, not copied."""
        self._requests = requests

    def take_skipped(self) -> int:
        """Number of image blocks that were not allocated since the last call."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    def _request(self, request_id: str) -> Request:
        if self._requests is None:
            raise RuntimeError(
                "text-only KV cache groups need vhserve's scheduler: "
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
        spans = image_spans(self._request(request_id))
        needed = count_text_blocks(spans, held, cdiv(num_tokens, self.block_size), self.block_size)
        # A cached block that nobody uses leaves the free list when it is touched.
        return needed + int(self._get_num_evictable_blocks(new_computed_blocks))

    def allocate_new_blocks(self, request_id: str, num_tokens: int, num_tokens_main_model: int) -> list[KVCacheBlock]:
        """Grow the request's table to `num_tokens` tokens; the null blocks are returned too, as workers append."""
        spans, table = image_spans(self._request(request_id)), self.req_to_blocks[request_id]
        first, last = len(table), cdiv(num_tokens, self.block_size)
        if last <= first:
            return []
        needed = count_text_blocks(spans, first, last, self.block_size)
        self._skipped += last - first - needed
        taken = iter(self.block_pool.get_new_blocks(needed))
        grown = [
            self._null_block if is_image_block(spans, index, self.block_size) else next(taken)
            for index in range(first, last)
        ]
        table.extend(grown)
        if self._record_new_block_ids:
            self.new_block_ids.extend(block.block_id for block in grown if not block.is_null)
        return grown

    def allocate_external_computed_blocks(
        self,
        request_id: str,
        num_local_computed_tokens: int,
        num_external_computed_tokens: int,
        record_for_zeroing: bool = True,
    ) -> None:
        if num_external_computed_tokens > 0:
            raise RuntimeError("KV connectors are refused with text-only heads")  # at start, by `unsupported_options`

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
        """Longest prefix whose text blocks are all cached; image blocks always hit, with the null block.

        Whether the image is the same needs no check of its own: hashes are chained and hold the image's hash, so the
        next text block misses if it differs, and the full heads' groups miss in the image itself.

        Returns
        -------
        Blocks of the prefix for each group of `kv_cache_group_ids`, and its length in tokens.
        """
        request = _lookup_request.get()
        if request is None:
            raise RuntimeError("prefix-cache lookup of a text-only group outside `lookup_for`")
        spans, block_size = image_spans(request), kv_cache_spec.block_size
        hashes = resolve_block_hashes(block_hashes, block_pool.hash_block_size, block_size)
        hits: tuple[list[KVCacheBlock], ...] = tuple([] for _ in kv_cache_group_ids)
        nulls = [block_pool.null_block] * len(hits)
        for index in range(min(max_length // block_size, len(hashes))):
            found = nulls
            if not is_image_block(spans, index, block_size):
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


def text_only_managers(kv_cache_manager: KVCacheManager) -> list[TextOnlyManager]:
    """Managers of an engine's text-only groups, in the order of the groups; empty without text-only heads."""
    managers = kv_cache_manager.coordinator.single_type_managers
    return [manager for manager in managers if isinstance(manager, TextOnlyManager)]
