"""What requests hold of the KV cache, and will hold: read off vLLM's KV cache managers and its live requests.

Owns how a request becomes a `Holder`: blocks of heads that see all of a prompt, and of those that drop image blocks as
the groups' managers count them. Does not know what is done with it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from weakref import WeakKeyDictionary

from vllm.utils.math_utils import cdiv
from vllm.v1.core.kv_cache_manager import KVCacheBlocks, KVCacheManager
from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager
from vllm.v1.request import Request

from profiles.treatments import Phase
from vhserve.engine.admission.reckoning import Growth, Holder
from vhserve.engine.kv_cache.manager import PartialManager


class Holders:
    """The requests of one engine and its pool of blocks."""

    def __init__(self, kv_cache_manager: KVCacheManager, requests: Mapping[str, Request], max_model_len: int) -> None:
        self._pool = kv_cache_manager.block_pool
        self._managers = kv_cache_manager.coordinator.single_type_managers
        self._requests = requests
        self._max_model_len = max_model_len
        self._watermark = kv_cache_manager.watermark_blocks
        groups = Counter((one.block_size, one.max_admission_blocks_per_request) for one in self._managers)
        self.growth = Growth(groups)
        self._saved: WeakKeyDictionary[Request, tuple[int, int]] = WeakKeyDictionary()
        """Tokens of a request's prompt, which of a session grows, and how many blocks less than text of its length it
        holds once these are computed."""

    @property
    def blocks(self) -> int:
        """Blocks that may be in use: all but the null block, and but vLLM's watermark."""
        return self._pool.num_gpu_blocks - 1 - self._watermark

    @property
    def used(self) -> int:
        """Blocks in use."""
        return self._pool.num_gpu_blocks - 1 - self._pool.get_num_free_blocks()

    def holds(self, request: Request) -> bool:
        """Whether a request holds blocks."""
        return any(one.req_to_blocks.get(request.request_id) for one in self._managers)

    def running(self) -> list[Holder]:
        """All requests that hold blocks."""
        return [self._running(request) for request in self._holding()]

    def generated(self) -> list[int]:
        """Tokens of their replies so far."""
        return [request.num_output_tokens for request in self._holding()]

    def waiting(self, request: Request, hits: KVCacheBlocks | None) -> Holder:
        """A request that holds no blocks yet.

        Parameters
        ----------
        hits
            Blocks of its prefix that are cached. Those that are in use cost nothing; free ones leave the free list.
        """
        shared = sum(
            block.ref_cnt > 0 and not block.is_null for group in (hits.blocks if hits else ()) for block in group
        )
        peak = self._count(request, request.num_tokens, "prompt")
        return self._holder(request, shared, self._count(request, request.num_tokens, "reply"), peak)

    def _holding(self) -> Iterator[Request]:
        for request_id, table in self._managers[0].req_to_blocks.items():
            request = self._requests.get(request_id)
            if table and request is not None and not request.is_finished():
                yield request

    def _running(self, request: Request) -> Holder:
        if request.num_computed_tokens >= request.num_prompt_tokens:  # most of them: cheaply, and right to a block
            blocks = self.growth.blocks_of(request.num_tokens) - self._saved_of(request)
            return self._holder(request, blocks, blocks, blocks)
        held = sum(_held(one, request.request_id) for one in self._managers)
        peak = self._count(request, request.num_tokens, "prompt")
        return self._holder(request, held, self._count(request, request.num_tokens, "reply"), max(held, peak))

    def _saved_of(self, request: Request) -> int:
        tokens, known = request.num_prompt_tokens, self._saved.get(request)
        if known is None or known[0] != tokens:
            known = tokens, self.growth.blocks_of(tokens) - self._count(request, tokens, "reply")
            self._saved[request] = known
        return known[1]

    def _holder(self, request: Request, held: int, filled: int, peak: int) -> Holder:
        limit = min(request.max_tokens, self._max_model_len - request.num_prompt_tokens)
        return Holder(request.num_tokens, request.num_output_tokens, limit, held, filled, peak)

    def _count(self, request: Request, tokens: int, phase: Phase) -> int:
        return sum(_blocks(one, request.request_id, tokens, phase) for one in self._managers)


def _blocks(manager: SingleTypeKVCacheManager, request_id: str, tokens: int, phase: Phase) -> int:
    if isinstance(manager, PartialManager):
        return manager.count_blocks(request_id, tokens, phase)
    blocks, most = cdiv(tokens, manager.block_size), manager.max_admission_blocks_per_request
    return int(blocks if most is None else min(blocks, most))


def _held(manager: SingleTypeKVCacheManager, request_id: str) -> int:
    if isinstance(manager, PartialManager):
        return manager.count_held(request_id)
    blocks, most = len(manager.req_to_blocks.get(request_id, ())), manager.max_admission_blocks_per_request
    return blocks if most is None else min(blocks, most)
