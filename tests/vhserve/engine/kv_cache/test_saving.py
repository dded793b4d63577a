"""What a plan saves as served, against the capacity of a cache, and the words that say so."""

import numpy as np
import pytest

from profiles.geometry import ModelGeometry, ModelRef
from profiles.planning.savings import kv_bytes_of_request
from profiles.planning.summary import USUAL_IMAGE_START, USUAL_TEXT_TOKENS
from profiles.pruning_plan import PruningPlan
from vhserve.engine.kv_cache.capacity import capacity, groups_of
from vhserve.engine.kv_cache.saving import promised_share, prompt_saving, saving_ratio
from vhserve.server.served_saving import described, shortfall

REF = ModelRef(name="m", revision="sha256:12", architecture="LlavaForConditionalGeneration")
GEOMETRY = ModelGeometry(layers=12, query_heads=8, kv_heads=8, head_size=32, hidden_size=256, image_tokens=144)


def drawn(seed: int, block_size: int | None = 32) -> PruningPlan:
    """About a third of the heads text-only and an eighth removed."""
    order = np.random.default_rng(seed).permutation(96)
    heads = [(int(head) // 8, int(head) % 8) for head in order]
    return PruningPlan.manual(REF, GEOMETRY, removed=heads[:12], text_only=heads[12:44], block_size=block_size)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
def test_it_is_how_many_more_prompts_the_cache_holds(seed: int, block_size: int) -> None:
    plan, unpruned = drawn(seed, block_size), PruningPlan.unpruned(REF, GEOMETRY)
    saving = prompt_saving(plan, block_size)
    groups = groups_of(plan, block_size)
    # All groups draw blocks of one size from one pool: of a cache of 96 heads times 1,000 blocks, so many.
    blocks = 96 * 1000 * groups.blocks(_prompt(block_size)) / saving.pruned
    held = capacity(groups, blocks, GEOMETRY.image_tokens, block_size).image_requests
    stock = capacity(groups_of(unpruned, block_size), 1000, GEOMETRY.image_tokens, block_size).image_requests
    assert saving.concurrency == pytest.approx(held / stock)
    # Padding takes, and gives nothing.
    width = 2 * GEOMETRY.head_size
    ideal = kv_bytes_of_request(plan, USUAL_TEXT_TOKENS, 144, 1, block_size, USUAL_IMAGE_START) / (block_size * width)
    assert ideal <= saving.pruned < saving.baseline
    assert saving_ratio(plan, block_size) == 1


def _prompt(block_size: int):
    from vhserve.engine.kv_cache.lanes import PromptBlocks

    return PromptBlocks.with_image(USUAL_TEXT_TOKENS, GEOMETRY.image_tokens, block_size)


def test_blocks_larger_than_the_plan_s_save_less_and_are_named() -> None:
    plan = drawn(0)
    assert saving_ratio(plan, 128) < 0.5 < saving_ratio(plan, 16)
    assert shortfall(plan, 32, "cpu") is None
    warning = shortfall(plan, 128, "cpu")
    assert warning is not None
    assert "blocks of 128 tokens" in warning
    assert (
        f"promised to save {prompt_saving(plan, 32).share:.1%} in blocks of 32: leave --block-size out, or give 32"
        in warning
    )
    assert "with a KV cache of fp8 and KV blocks of 128 tokens" in described(plan, 128, "bfloat16", "fp8")


def test_of_a_plan_that_does_not_say_tokens_were_promised() -> None:
    plan = drawn(0, None)
    assert promised_share(plan) == pytest.approx((12 * 214 + 32 * 144) / (96 * 214))
    assert saving_ratio(plan, 16) > 0.5
    warning = shortfall(plan, 128, "cpu")
    assert warning is not None
    assert warning.endswith(": leave --block-size out, or give 32")


def test_few_heads_of_a_treatment_are_better_left_full() -> None:
    heads = drawn(0).heads("text_only")
    few = PruningPlan.manual(REF, GEOMETRY, text_only=heads[:4])
    warning = shortfall(few, 32, "cpu")
    assert warning is not None
    assert "takes 9.5% more KV cache than no plan" in warning
    assert ": leave its text-only heads full, or give its treatments more heads: " in warning
    larger = shortfall(few, 128, "cpu")
    assert larger is not None
    assert "leave --block-size out, or give 32; then leave its text-only heads full" in larger
    promised_so = shortfall(few.model_copy(update={"block_size": 32}), 32, "cpu")
    assert promised_so is not None
    assert "promised" not in promised_so
    assert shortfall(PruningPlan.manual(REF, GEOMETRY, text_only=heads), 32, "cpu") is None


def test_where_a_device_has_no_blocks_so_small_another_is_named() -> None:
    heads = [(int(head) // 8, int(head) % 8) for head in np.random.default_rng(0).permutation(96)]
    plan = PruningPlan.manual(REF, GEOMETRY, text_only=heads[:26], evict=heads[26:32])
    warning = shortfall(plan, 32, "cpu")
    assert warning is not None
    assert "or serve on NVIDIA GPUs: " in warning
    assert shortfall(plan, 16, "cuda") is None
    on_gpu = shortfall(plan, 32, "cuda")
    assert on_gpu is not None
    assert on_gpu.endswith(": leave --block-size out, or give 16")


def test_an_empty_plan_promises_nothing_and_keeps_it() -> None:
    plan = PruningPlan.unpruned(REF, GEOMETRY)
    assert (promised_share(plan), saving_ratio(plan, 128), shortfall(plan, 128, "cpu")) == (0, 1, None)
