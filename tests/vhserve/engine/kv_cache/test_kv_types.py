"""Types of the KV cache: what a cell takes by vLLM's own specs, and what ours keep of a spec."""

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend, TritonAttentionImpl
from vllm.v1.kv_cache_interface import AttentionSpec, FullAttentionSpec, KVQuantMode, get_kv_quant_mode

from profiles.geometry import ModelGeometry, ModelRef
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TEXT_ONLY
from vhserve.compat.layers import settle_scales
from vhserve.engine.checks.unsupported_options import KV_CACHE_TYPES
from vhserve.engine.kv_cache.cell import cell_bytes
from vhserve.engine.kv_cache.lane_assignment import PADDING_BYTES
from vhserve.engine.kv_cache.pool import Pool
from vhserve.engine.kv_cache.spec import FullLaneSpec, PartialSpec
from vhserve.errors import FlagRefused
from vhserve.server.preflight.flags import GivenFlags
from vhserve.server.preflight.memory import _pool

pytestmark = pytest.mark.vllm

LAYERS, KV_HEADS, HEAD_SIZE, BLOCK = 3, 5, 40, 16

BYTES = {
    "auto": 2 * 40 * 4,
    "bfloat16": 2 * 40 * 2,
    "fp8": 2 * 40,
    "fp8_e5m2": 2 * 40,
    "int8_per_token_head": 2 * 40 + 8,
    "fp8_per_token_head": 2 * 40 + 8,
    "int4_per_token_head": 40 + 8,
}
"""Of one head of 40 and one token, in a model of float32: key, value, and a float32 scale of each where it has any."""


def config(kind: str) -> Any:
    return SimpleNamespace(
        cache_config=SimpleNamespace(cache_dtype=kind), model_config=SimpleNamespace(dtype=torch.float32)
    )


def stock_spec(kind: str, kv_heads: int = KV_HEADS) -> AttentionSpec:
    """What vLLM's attention reports with Triton, with a value of its own in every field that has a default."""
    from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype

    spec = FullAttentionSpec(
        block_size=BLOCK,
        num_kv_heads=kv_heads,
        head_size=HEAD_SIZE,
        dtype=kv_cache_dtype_str_to_dtype(kind, config(kind).model_config),
        kv_quant_mode=get_kv_quant_mode(kind),
        max_tp_shards=3,
        block_stride_alignment=4,
        dcp_sharded=False,
    )
    customised: AttentionSpec = TritonAttentionBackend.customize_spec(spec)
    return customised


@pytest.mark.parametrize("kind", BYTES)
def test_a_cell_is_as_large_as_vllm_s_own_page_says(kind: str) -> None:
    assert cell_bytes(config(kind), HEAD_SIZE) == BYTES[kind]
    assert stock_spec(kind).page_size_bytes == KV_HEADS * BLOCK * BYTES[kind]


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("padded", [False, True])
def test_our_specs_keep_all_of_vllm_s(kind: str, padded: bool) -> None:
    stock = replace(stock_spec(kind), num_head_slots=7) if padded else stock_spec(kind)
    for ours in (FullLaneSpec.of(stock, 2), PartialSpec.of(stock, TEXT_ONLY.name, 2)):
        for field in fields(AttentionSpec):
            assert getattr(ours, field.name) == getattr(stock, field.name), field.name
        assert ours.page_size_bytes == stock.page_size_bytes
        assert TritonAttentionBackend.customize_spec(ours) == ours  # the runner asks once more
        larger = replace(ours, page_size_padded=ours.page_size_bytes + PADDING_BYTES)
        merged = type(ours).merge([larger, larger])
        assert merged == larger
        assert merged.page_size_bytes == stock.page_size_bytes + PADDING_BYTES
        assert merged.page_size_bytes % 4 == 0  # where scales are read as float32


@pytest.mark.parametrize("kind", BYTES)
def test_blocks_and_early_refusals_count_the_same_bytes(kind: str) -> None:
    """Of all layers without a plan, and of the widest lane with one: the specs of vLLM, and ours."""
    geometry = ModelGeometry(
        layers=LAYERS, query_heads=KV_HEADS, kv_heads=KV_HEADS, head_size=HEAD_SIZE, hidden_size=72, image_tokens=64
    )
    cell = cell_bytes(config(kind), HEAD_SIZE)
    whole = Pool.of(geometry, None, BLOCK, cell)
    assert whole.block_bytes == LAYERS * stock_spec(kind).page_size_bytes
    plan = PruningPlan.manual(
        ModelRef(name="m", revision="r", architecture="a"), geometry, removed=[(0, 0), (0, 1), (2, 4)]
    )
    fewer = Pool.of(geometry, plan, BLOCK, cell)
    assert fewer.block_bytes == sum(stock_spec(kind, kept).page_size_bytes for kept in (3, 5, 4))
    flags = {"--kv-cache-dtype": kind, "--block-size": str(BLOCK), "--dtype": "float32"}
    assert _pool(GivenFlags(flags), {}, plan) == fewer


def test_every_type_that_goes_together_with_a_plan_has_a_size() -> None:
    for kind in KV_CACHE_TYPES:
        assert cell_bytes(config(kind), HEAD_SIZE) > 0
    with pytest.raises(FlagRefused, match="nvfp4"):
        cell_bytes(config("nvfp4"), HEAD_SIZE)


def triton_cache(raw: torch.Tensor, heads: int, block_bytes: int) -> torch.Tensor:
    """A layer's cache of `heads` heads at the beginning of each block of a pool."""
    cell = HEAD_SIZE + 8
    shape, strides = (3, heads, BLOCK, cell), (block_bytes, BLOCK * cell, cell, 1)
    return torch.as_strided(raw, shape, strides)


def triton_layer() -> Any:
    impl = TritonAttentionImpl.__new__(TritonAttentionImpl)
    impl._kv_quant_mode, impl._is_per_token_head_quant = KVQuantMode.INT4_PER_TOKEN_HEAD, True
    return SimpleNamespace(impl=impl)


@pytest.mark.parametrize("settled", [True, False])
def test_a_layer_that_runs_for_the_first_time_leaves_others_blocks_alone(settled: bool) -> None:
    """Two layers of two groups, whose caches share the pool's blocks; without our settling, vLLM still overwrites."""
    block_bytes = 3 * BLOCK * (HEAD_SIZE + 8)
    raw = torch.zeros(3 * block_bytes, dtype=torch.int8)
    wide, narrow = triton_cache(raw, 3, block_bytes), triton_cache(raw, 2, block_bytes)
    first, second = triton_layer(), triton_layer()
    if settled:
        settle_scales(first, wide)
        settle_scales(second, narrow)
    first.impl._pth_key_value_caches(wide)
    wide.random_(1, 100, generator=torch.Generator().manual_seed(7))
    written = wide.clone()
    second.impl._pth_key_value_caches(narrow)
    assert torch.equal(wide, written) == settled
