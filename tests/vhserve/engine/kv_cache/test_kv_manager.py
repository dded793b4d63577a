"""KV groups of partial heads against vLLM's real KVCacheManager and block pool: no engine, no model, many steps."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, KVCacheSpec
from vllm.v1.request import Request

from profiles.image_spans import OLD_RULE, RULE, merge
from profiles.treatments import NO_BLOCKS, ImageBlocks, Phase
from vhserve.engine.kv_cache import spec as kv_cache_spec
from vhserve.engine.kv_cache.image_spans import count_kept, image_blocks, image_spans, unseen_blocks
from vhserve.engine.kv_cache.manager import PartialManager, lookup_for
from vhserve.engine.kv_cache.spec import FullLaneSpec, PartialSpec
from vhserve.engine.scheduler import PartialMixin

BLOCK = 16
IMAGE_TOKEN = 4


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    kv_cache_spec.register()
    kv_cache_spec.register()  # idempotent
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


def test_touching_images_are_one_span_and_the_rule_says_what_holes_are() -> None:
    touching = request([IMAGE_TOKEN] * 40, [("a", position(0, 16)), ("b", position(16, 20))])
    assert image_spans(touching, RULE) == ((0, 36),)
    holes = request([IMAGE_TOKEN] * 64, [("a", position(0, 64, holes=(20,)))])
    spans = image_spans(holes, OLD_RULE)
    assert spans == ((0, 20), (21, 64))
    assert list(unseen_blocks(spans, BLOCK, NO_BLOCKS)) == [0, 2, 3]
    assert list(unseen_blocks(spans, BLOCK, ImageBlocks(2))) == [3]  # a hole that is text begins another count
    assert image_spans(holes, RULE) == ((0, 64),)
    assert image_spans(request([1, 2, 3], []), RULE) == ()


def test_spans_follow_a_streaming_session_that_adds_an_image() -> None:
    live = request([IMAGE_TOKEN] * 64, [("a", position(0, 16))])
    assert image_spans(live, RULE) == ((0, 16),)
    live.mm_features.append(
        MultiModalFeatureSpec(data=None, modality="image", identifier="b", mm_position=position(32, 16))
    )
    assert image_spans(live, RULE) == ((0, 16), (32, 48))


def test_counting_blocks_agrees_with_looking_at_every_position() -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(300):
        length, size = rng.randint(1, 200), rng.choice([1, 3, 16, 32])
        is_image = [False] * length
        spans = []
        for _ in range(rng.randint(0, 4)):
            start = rng.randrange(length)
            stop = rng.randint(start, length)
            spans.append((start, stop))
            is_image[start:stop] = [True] * (stop - start)
        expected = {
            i
            for i in range(-(-length // size))
            if (i + 1) * size <= length and all(is_image[i * size : (i + 1) * size])
        }
        ranges = image_blocks(merge(spans), size)
        assert {i for first, last in ranges for i in range(first, last)} == expected
        first, last = sorted((rng.randint(0, 14), rng.randint(0, 14)))
        asked = request([0] * length, [(f"i{n}", position(a, b - a)) for n, (a, b) in enumerate(spans) if b > a])
        seen = ImageBlocks(rng.choice([None, 1, 2, 4, 8]))
        unseen = {i for start, stop in ranges for i in range(start, stop) if not seen.has(i - start)}
        assert set(unseen_blocks(image_spans(asked, RULE), size, seen)) == unseen
        assert count_kept(image_spans(asked, RULE), first, last, size, seen) == sum(
            i not in unseen for i in range(first, last)
        )


def test_an_image_prompt_holds_exactly_the_formula_of_blocks() -> None:
    schedule = scheduling([full(), text(3, 0), text(3, 1)], blocks=200)
    asked = request([7] * 20 + [IMAGE_TOKEN] * 100 + [9] * 30, [("a", position(20, 100))])
    schedule.requests["r"] = asked
    manager = schedule.kv_cache_manager
    free = manager.block_pool.get_num_free_blocks()
    assert manager.allocate_slots(asked, asked.num_tokens) is not None
    ids = manager.get_block_ids("r")
    # 150 tokens are 10 blocks; the image covers [20, 120), which is blocks 2 to 6 whole.
    assert [len(table) for table in ids] == [10, 10, 10]
    assert all(ids[0])
    for table in ids[1:]:
        assert [index for index, block in enumerate(table) if block == 0] == [2, 3, 4, 5, 6]
    assert free - manager.block_pool.get_num_free_blocks() == 10 + 5 + 5
    skipped = [group.take_skipped() for group in manager.coordinator.single_type_managers[1:]]
    assert skipped == [5, 5]
    assert manager.coordinator.single_type_managers[1].take_skipped() == 0


def test_a_group_without_our_scheduler_says_so() -> None:
    manager = KVCacheManager(
        KVCacheConfig(num_blocks=20, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["l"], text(2, 0))]),
        max_model_len=64,
        scheduler_block_size=BLOCK,
        hash_block_size=BLOCK,
    )
    with pytest.raises(RuntimeError, match="plan_scheduler"):
        manager.allocate_slots(request([1] * 8, []), 8)
    with pytest.raises(RuntimeError, match="lookup_for"):
        manager.get_computed_blocks(request([1] * 40, []))


def test_vllm_still_knows_its_own_specs() -> None:
    """Registering ours into an empty registry would hide vLLM's."""
    from vllm.v1.kv_cache_interface import MambaSpec, SlidingWindowSpec
    from vllm.v1.kv_cache_spec_registry import _REGISTRY_KVCACHESPEC_LIST

    assert {FullAttentionSpec, SlidingWindowSpec, MambaSpec, PartialSpec, FullLaneSpec} <= set(
        _REGISTRY_KVCACHESPEC_LIST
    )


GROUPS = {
    "full and text": ([full(), text(3, 0)], 60),
    "full and three lanes": ([full(), text(8, 0), text(3, 1), text(5, 2)], 110),
    "two full lanes": ([FullLaneSpec.of(full(4), 0), FullLaneSpec.of(full(4), 1), text(4, 0)], 90),
    "one spec twice": ([full(), text(3, 0), text(3, 0)], 90),
    "text only, two lanes": ([text(8, 0), text(3, 1)], 60),
    "text only, one lane": ([text(8, 0)], 40),
    "evicted beside full": ([FullLaneSpec.of(full(8), 0), partial("evict", 3)], 60),
    "evicted, one lane": ([partial("evict", 8)], 40),
    "five kinds": (
        [
            FullLaneSpec.of(full(8), 0),
            partial("evict", 3),
            partial("evict:2", 2),
            partial("thinned:2", 4),
            text(3, 0),
        ],
        150,
    ),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("caching", [True, False], ids=["prefix-cache", "no-cache"])
def test_random_requests_in_a_small_pool(name: str, caching: bool) -> None:
    """Arrivals, chunks, decodes, both ways of freeing, evictions: after every step the tables and the pool agree."""
    specs, blocks = GROUPS[name]
    seed = random.randrange(10**6)
    print("seed", seed)
    wanted = {"admitted": 50, "refused": 5, "image blocks": 1}  # refused: the pool was full
    if any(getattr(spec, "treatment", "").startswith("evict") for spec in specs):
        wanted["evicted"] = 5
    if caching:
        wanted |= {"hits": 10, "hits that end in an image": 1}
    seen: Counter[str] = Counter()
    for walk in range(60):  # hits that end in an image are in one of four; a walk more is cheaper than long walks
        seen += Stress(scheduling(specs, blocks, caching), random.Random(f"{seed} {walk}"), caching).run(steps=350)
        if all(seen[name] >= count for name, count in wanted.items()):
            return
    raise AssertionError(f"only {dict(seen)} in 60 walks")


class Stress:
    """A random walk over the KV cache manager, checked after every step against what must be true."""

    def __init__(self, schedule: Scheduling, rng: random.Random, caching: bool) -> None:
        self.schedule, self.rng, self.caching = schedule, rng, caching
        self.manager = schedule.kv_cache_manager
        self.pool = self.manager.block_pool
        self.groups = self.manager.coordinator.single_type_managers
        self.live: list[Request] = []
        self.seen: Counter[str] = Counter()

    def run(self, steps: int) -> Counter[str]:
        at_start = self.pool.get_num_free_blocks()
        for step in range(steps):
            action = self.rng.random()
            if action < 0.45 or not self.live:
                self.arrive(str(step))
            elif action < 0.8:
                self.grow(self.rng.choice(self.live))
            else:
                self.leave(self.live[self.rng.randrange(len(self.live))])
            if self.caching and self.rng.random() < 0.02:
                self.manager.evict_blocks({self.rng.randrange(1, self.pool.num_gpu_blocks) for _ in range(5)})
            self.check()
        for asked in list(self.live):
            self.leave(asked)
        assert self.pool.get_num_free_blocks() == at_start
        assert not any(group.req_to_blocks or group.num_cached_block for group in self.groups)
        assert self.manager.reset_prefix_cache()
        return self.seen

    def drops(self, group: int, asked: Request, index: int, phase: Phase = "prompt") -> bool:
        """Whether a group has the null block for a block of a request."""
        manager = self.groups[group]
        if not isinstance(manager, PartialManager):
            return False
        return index in unseen_blocks(image_spans(asked, RULE), BLOCK, manager.treatment.seen(phase))

    def draw(self, name: str) -> Request:
        rng = self.rng
        tokens = [100 + rng.randrange(3)] * rng.choice([0, 1, 5, 16, 17, 33])
        images = []
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            picture, length = rng.randrange(3), rng.choice([10, 16, 40, 64, 100])
            holes = list(range(length // 3, length // 3 + rng.choice([1, 8, 9, 20]))) if rng.random() < 0.4 else []
            holes = [one for one in holes if one < length - 1]
            images.append((f"picture{picture}-{length}-{holes}", position(len(tokens), length, holes)))
            tokens += [IMAGE_TOKEN] * length
            tokens += [200 + rng.randrange(2)] * rng.choice([0, 0, 3, 20])
        tokens += [300 + rng.randrange(2)] * rng.choice([1, 4, 20])
        return request(tokens, images, name)

    def predicted(self, asked: Request, tokens: int, cached: Sequence[Sequence[object]], hit: int) -> int:
        return self.manager.coordinator.get_num_blocks_to_allocate(
            asked.request_id,
            tokens,
            cached,
            0,
            hit,
            hit,
            tokens,  # type: ignore[arg-type]
        )

    def arrive(self, name: str) -> None:
        asked = self.draw(name)
        self.schedule.requests[name] = asked
        cached, hit, _ = self.manager.get_computed_blocks(asked)
        self.check_hit(asked, cached.blocks, hit)
        chunk = self.rng.choice([asked.num_tokens - hit, min(asked.num_tokens - hit, self.rng.randint(1, 40))])
        before = self.pool.get_num_free_blocks()
        expected = self.predicted(asked, hit + chunk, cached.blocks, hit)
        if self.manager.allocate_slots(asked, chunk, hit, cached) is None:
            self.seen["refused"] += 1
            assert expected > before
            del self.schedule.requests[name]
            return
        assert before - self.pool.get_num_free_blocks() == expected
        asked.num_computed_tokens = hit + chunk
        self.live.append(asked)
        self.seen["admitted"] += 1
        self.seen["hits"] += hit > 0
        self.seen["hits that end in an image"] += any(first < hit < last for first, last in image_spans(asked, RULE))

    def check_hit(self, asked: Request, tables: Sequence[Sequence[object]], hit: int) -> None:
        assert hit % BLOCK == 0
        assert hit < asked.num_tokens
        for group, table in enumerate(tables):
            if hit:
                assert len(table) == hit // BLOCK
            for index, block in enumerate(table):
                if self.drops(group, asked, index):
                    assert block.is_null  # type: ignore[attr-defined]
                else:
                    key = block.block_hash  # type: ignore[attr-defined]
                    assert key is not None
                    assert key.startswith(asked.block_hashes[index])
        if self.caching and hit + BLOCK < asked.num_tokens:
            index = hit // BLOCK
            assert any(
                not self.drops(group, asked, index)
                and self.pool.get_cached_block(asked.block_hashes[index], [group]) is None
                for group in range(len(self.groups))
            ), "a longer prefix was cached"

    def grow(self, asked: Request) -> None:
        if asked.num_computed_tokens >= asked.num_tokens:
            asked.append_output_token_ids([self.rng.randrange(5)])
        done = asked.num_computed_tokens
        chunk = min(asked.num_tokens - done, self.rng.choice([1, 17, 64]))
        # Freed before anything is taken, so that the same step can reuse it.
        evicted = self.evictable(asked) if done >= asked.num_prompt_tokens else 0
        self.seen["evicted"] += evicted
        before = self.pool.get_num_free_blocks() + evicted
        expected = self.predicted(asked, done + chunk, self.manager.empty_kv_cache_blocks.blocks, done)
        if self.manager.allocate_slots(asked, chunk) is None:
            self.seen["refused"] += 1
            assert expected > before
            self.leave(asked)  # what a preemption does to the cache
            return
        assert before - self.pool.get_num_free_blocks() == expected
        asked.num_computed_tokens = done + chunk

    def evictable(self, asked: Request) -> int:
        """Blocks that a request gives back when its prompt is computed."""
        names = [one.request_id for one in self.live]
        shared = Counter(
            block.block_id for group in self.groups for name in names for block in group.req_to_blocks[name]
        )
        return sum(
            not block.is_null and shared[block.block_id] == 1
            for group, manager in enumerate(self.groups)
            for index, block in enumerate(manager.req_to_blocks[asked.request_id])
            if self.drops(group, asked, index, "reply")
        )

    def leave(self, asked: Request) -> None:
        self.live.remove(asked)
        if self.rng.random() < 0.5:
            self.manager.free(asked)
        else:  # async scheduling defers the return of the blocks
            self.pool.free_blocks(reversed(self.manager.pop_blocks_for_free(asked)))
        del self.schedule.requests[asked.request_id]

    def check(self) -> None:
        users: Counter[int] = Counter()
        for asked in self.live:
            for group, manager in enumerate(self.groups):
                table = manager.req_to_blocks[asked.request_id]
                assert len(table) == -(-asked.num_computed_tokens // BLOCK)
                phase: Phase = "reply" if asked.num_computed_tokens > asked.num_prompt_tokens else "prompt"
                for index, block in enumerate(table):
                    assert block.is_null == self.drops(group, asked, index, phase)
                    self.seen["image blocks"] += block.is_null
                    if not block.is_null:
                        users[block.block_id] += 1
        for block_id, count in users.items():
            assert self.pool.blocks[block_id].ref_cnt == count
        assert self.pool.num_gpu_blocks - 1 - len(users) == self.pool.get_num_free_blocks()


def test_lookup_outside_a_request_leaves_no_request_behind() -> None:
    asked = request([1, 2], [])
    with pytest.raises(ValueError, match="boom"), lookup_for(asked):
        raise ValueError("boom")
    schedule = scheduling([text(2, 0)], 20)
    with pytest.raises(RuntimeError, match="lookup_for"):
        schedule.kv_cache_manager.coordinator.find_longest_cache_hit(request([1] * 40, []).block_hashes, 32)
