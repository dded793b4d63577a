"""KV groups of partial heads against vLLM's real KVCacheManager and block pool: no engine, no model."""

import random

import pytest
from kv_managers import BLOCK, IMAGE_TOKEN, full, position, register, request, scheduling, text
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

from profiles.image_spans import OLD_RULE, RULE, merge
from profiles.treatments import NO_BLOCKS, ImageBlocks
from vhserve.engine.kv_cache.image_spans import count_kept, image_blocks, image_spans, unseen_blocks
from vhserve.engine.kv_cache.manager import lookup_for
from vhserve.engine.kv_cache.spec import FullLaneSpec, PartialSpec


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


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


def test_counting_blocks_agrees_with_looking_at_every_position(random_seed: int) -> None:
    rng = random.Random(random_seed)
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


def test_lookup_outside_a_request_leaves_no_request_behind() -> None:
    asked = request([1, 2], [])
    with pytest.raises(ValueError, match="boom"), lookup_for(asked):
        raise ValueError("boom")
    schedule = scheduling([text(2, 0)], 20)
    with pytest.raises(RuntimeError, match="lookup_for"):
        schedule.kv_cache_manager.coordinator.find_longest_cache_hit(request([1] * 40, []).block_hashes, 32)
