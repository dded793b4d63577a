"""vLLM's real KVCacheManager over groups of partial heads, and requests for it, without an engine. Judges nothing."""

from collections.abc import Sequence

import torch
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, KVCacheSpec
from vllm.v1.request import Request

from vhserve.engine.kv_cache import spec as kv_cache_spec
from vhserve.engine.kv_cache.spec import PartialSpec
from vhserve.engine.scheduler import PartialMixin

BLOCK = 16
IMAGE_TOKEN = 4


def register() -> None:
    """What vLLM needs before its first manager; specs may be registered twice."""
    kv_cache_spec.register()
    kv_cache_spec.register()
    init_none_hash(sha256)


def full(heads: int = 8) -> FullAttentionSpec:
    return FullAttentionSpec(block_size=BLOCK, num_kv_heads=heads, head_size=32, dtype=torch.float32)


def partial(treatment: str, heads: int, lane: int = 0) -> PartialSpec:
    return PartialSpec.of(full(heads), treatment, lane)


def text(heads: int, lane: int) -> PartialSpec:
    return partial("text_only", heads, lane)


def position(offset: int, length: int, holes: Sequence[int] = ()) -> PlaceholderRange:
    mask = None
    if holes:
        mask = torch.ones(length, dtype=torch.bool)
        mask[list(holes)] = False
    return PlaceholderRange(offset=offset, length=length, is_embed=mask)


def request(tokens: Sequence[int], images: Sequence[tuple[str, PlaceholderRange]], name: str = "r") -> Request:
    return Request(
        request_id=name,
        prompt_token_ids=list(tokens),
        mm_features=[
            MultiModalFeatureSpec(data=None, modality="image", identifier=image, mm_position=where)
            for image, where in images
        ],
        sampling_params=SamplingParams(max_tokens=64),
        pooling_params=None,
        block_hasher=get_request_block_hasher(BLOCK, sha256),
    )


class SchedulerStub:
    """What the mixin touches of vLLM's scheduler; the mixin, manager and pool are the real ones."""

    def __init__(self, manager: KVCacheManager) -> None:
        self.kv_cache_manager = manager
        self.requests: dict[str, Request] = {}

    def _reserve_prefill_lookahead(self, request: Request, computed: int, tokens: int) -> int:
        return tokens

    def _update_request_as_session(self, session: Request, update: object) -> None: ...


class Scheduling(PartialMixin, SchedulerStub):
    pass


def scheduling(specs: Sequence[KVCacheSpec], blocks: int, caching: bool = True) -> Scheduling:
    groups = [KVCacheGroupSpec([f"layer.{i}"], spec) for i, spec in enumerate(specs)]
    config = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=groups)
    return Scheduling(
        KVCacheManager(
            config, max_model_len=1024, scheduler_block_size=BLOCK, hash_block_size=BLOCK, enable_caching=caching
        )
    )
