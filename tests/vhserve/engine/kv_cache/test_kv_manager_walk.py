"""A random walk over vLLM's real KVCacheManager with groups of partial heads: many steps, each of them checked."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from kv_managers import BLOCK, IMAGE_TOKEN, Scheduling, full, partial, position, register, request, scheduling, text
from vllm.v1.request import Request

from profiles.image_spans import RULE
from profiles.treatments import Phase
from vhserve.engine.kv_cache.image_spans import image_spans, unseen_blocks
from vhserve.engine.kv_cache.manager import PartialManager
from vhserve.engine.kv_cache.spec import FullLaneSpec


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


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
def test_random_requests_in_a_small_pool(name: str, caching: bool, random_seed: int) -> None:
    """Arrivals, chunks, decodes, both ways of freeing, evictions: after every step the tables and the pool agree."""
    specs, blocks = GROUPS[name]
    wanted = {"admitted": 50, "refused": 5, "image blocks": 1}  # refused: the pool was full
    if any(getattr(spec, "treatment", "").startswith("evict") for spec in specs):
        wanted["evicted"] = 5
    if caching:
        wanted |= {"hits": 10, "hits that end in an image": 1}
    seen: Counter[str] = Counter()
    for walk in range(60):  # hits that end in an image are in one of four; a walk more is cheaper than long walks
        seen += Stress(scheduling(specs, blocks, caching), random.Random(f"{random_seed} {walk}"), caching).run(
            steps=350
        )
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
