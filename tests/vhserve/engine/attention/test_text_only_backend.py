"""The text-only backend around a reference kernel, with either builder: attention by definition, zero where dropped."""

import random
from dataclasses import dataclass, fields
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from compaction_batches import BLOCK, BLOCKS, WIDTH, Batch, draw, paged_attention
from torch import nn
from vllm.v1.attention.backend import AttentionBackend, AttentionCGSupport, CommonAttentionMetadata

from profiles.treatments import TEXT_ONLY
from vhserve.engine.attention.known_queries import DroppedBlocks, StepQueries, StepRequests
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.attention.partial_backend import SUPPORTED, partial_backend
from vhserve.engine.attention.query_routing import with_routing
from vhserve.engine.attention.step_compaction import StepCompaction
from vhserve.engine.checks.unsupported_options import BACKENDS
from vhserve.errors import FlagRefused


@dataclass
class Metadata:
    """Of the reference kernel."""

    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor


class Builder:
    """The reference's, as a stock one."""

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        self.kv_cache_spec = kv_cache_spec
        self.supports_draft_decode_metadata_update = True

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> AttentionCGSupport:
        return AttentionCGSupport.ALWAYS

    def build(self, common_prefix_len: int, batch: CommonAttentionMetadata, fast_build: bool = False) -> Metadata:
        assert batch.max_query_len >= batch.query_start_loc.diff().max()
        assert batch.max_seq_len >= batch.seq_lens.max()
        return Metadata(batch.query_start_loc, batch.seq_lens, batch.block_table_tensor)


class Impl:
    """The reference kernel; what it does not write is NaN."""

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: Any,
        value: Any,
        kv_cache: torch.Tensor,
        attn_metadata: Metadata,
        output: torch.Tensor,
        *scales: Any,
    ) -> torch.Tensor:
        starts, lens, table = attn_metadata.query_start_loc, attn_metadata.seq_lens, attn_metadata.block_table
        output[:, 0] = paged_attention(query[:, 0], starts, kv_cache[0], kv_cache[1], table, lens)
        return output


def backend(name: str) -> type[AttentionBackend]:
    members = {"get_builder_cls": Builder, "get_impl_cls": Impl, "get_name": name}
    functions = {key: staticmethod(lambda value=value: value) for key, value in members.items()}
    return partial_backend(type("ReferenceBackend", (AttentionBackend,), functions))


def builder(name: str, step: StepCompaction, kernel_block: int = BLOCK) -> Any:
    """A builder of a group whose only layer shares `step` with those of other groups."""
    layer = PartialAttention.__new__(PartialAttention)  # without a vLLM configuration, which a kernel would need
    nn.Module.__init__(layer)
    layer.step_compaction, layer.treatment = step, TEXT_ONLY
    config = SimpleNamespace(
        cache_config=SimpleNamespace(block_size=BLOCK),
        scheduler_config=SimpleNamespace(max_num_seqs=8, max_num_batched_tokens=2048),
        compilation_config=SimpleNamespace(max_cudagraph_capture_size=None, static_forward_context={"layer": layer}),
    )
    made: Any = backend(name).get_builder_cls()
    return made(SimpleNamespace(block_size=kernel_block), ["layer"], config, torch.device("cpu"))


def metadata_of(batch: Batch, table: torch.Tensor, slots: torch.Tensor) -> CommonAttentionMetadata:
    return CommonAttentionMetadata(
        query_start_loc=batch.starts,
        query_start_loc_cpu=batch.starts,
        seq_lens=batch.seq_lens,
        num_reqs=batch.requests,
        num_actual_tokens=batch.tokens,
        max_query_len=int(batch.starts.diff().max()),
        max_seq_len=int(batch.seq_lens.max()),
        block_table_tensor=table,
        slot_mapping=slots,
    )


def known_step(batch: Batch) -> StepQueries:
    """What the host knows of a batch without padding."""
    flags = [(batch.table[row, : -(-int(length) // BLOCK)] == 0).numpy() for row, length in enumerate(batch.seq_lens)]
    blocks = {str(row): {TEXT_ONLY.name: DroppedBlocks(one, BLOCK)} for row, one in enumerate(flags)}
    scheduled, starts = batch.starts.diff().numpy(), batch.starts.numpy()
    computed = batch.seq_lens.numpy() - scheduled
    return StepQueries(StepRequests(list(blocks), computed, scheduled, starts), blocks, torch.device("cpu"))


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
@pytest.mark.parametrize("decode", [True, False], ids=["decode", "mixed"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_each_group_of_a_step_attends_to_what_it_keeps(name: str, decode: bool, known: bool, random_seed: int) -> None:
    rng = random.Random(random_seed)
    torch.manual_seed(random_seed)
    step = StepCompaction()
    builders, impl = [builder(name, step) for _ in range(2)], backend(name).get_impl_cls()()
    pages = torch.randn(2, BLOCKS * BLOCK, WIDTH)
    pages[:, :BLOCK] = torch.nan  # reading the null block would show
    dropped = 0
    for _ in range(40):
        batch = draw(rng, decode)
        while known and batch.tokens > len(batch.reference_keys):
            batch = draw(rng, decode)
        step_queries = known_step(batch) if known else None
        query = torch.randn(batch.tokens, 1, WIDTH)
        expected = torch.zeros(batch.tokens, WIDTH)
        for token, slots in enumerate(batch.reference_keys):
            if slots:
                expected[token] = torch.softmax(query[token, 0] @ pages[0, slots].T, -1) @ pages[1, slots]
        dropped += sum(not slots for slots in batch.reference_keys)
        # Another group holds the same tokens in other blocks.
        renamed = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(BLOCKS - 1)])
        elsewhere = torch.empty_like(pages).view(2, BLOCKS, BLOCK, WIDTH)
        elsewhere[:, renamed] = pages.view(2, BLOCKS, BLOCK, WIDTH)
        moved = torch.where(batch.slots < 0, -1, renamed[batch.slots // BLOCK] * BLOCK + batch.slots % BLOCK)
        first = metadata_of(batch, batch.table, batch.slots)
        second = metadata_of(batch, renamed[batch.table.long()].int(), moved)
        for made, common, cache in zip(builders, (first, second), (pages, elsewhere.view_as(pages)), strict=True):
            output = torch.full((batch.tokens, 1, WIDTH), torch.nan)
            impl.forward(None, query, None, None, cache, made.build(0, common, step_queries=step_queries), output)
            real = len(batch.reference_keys)  # what follows is padding
            torch.testing.assert_close(output[:real, 0], expected[:real], rtol=1e-5, atol=1e-5)
    assert dropped > 20


@pytest.mark.parametrize("name", SUPPORTED)
def test_builders_of_a_group_share_one_compaction_a_step(name: str) -> None:
    """vLLM has a builder for each page size of a group, and gives all of them the same batch."""
    rng, step = random.Random(1), StepCompaction()
    builders = [builder(name, step), builder(name, step)]
    batch = draw(rng, decode=False)
    while not (batch.table[0, : int(batch.seq_lens[0]) // BLOCK] == 0).any():
        batch = draw(rng, decode=False)
    common = metadata_of(batch, batch.table, batch.slots)
    first, second = [made.build(0, common) for made in builders]
    assert isinstance(first, Metadata)
    assert first.routing is second.routing is not None
    assert first.block_table is second.block_table
    later = builders[0].build(0, metadata_of(batch, batch.table.clone(), batch.slots))
    assert later.routing is not first.routing


def test_what_the_builder_does_not_support_it_says() -> None:
    made = builder("TRITON_ATTN", StepCompaction())
    assert not made.supports_update_block_table
    assert not made.supports_draft_decode_metadata_update
    assert made.get_cudagraph_support(None, None) is AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
    with pytest.raises(FlagRefused, match="--block-size 8"):
        builder("TRITON_ATTN", StepCompaction(), kernel_block=8)


@pytest.mark.parametrize("name", ["cpu_attn.CPUAttention", "flash_attn.FlashAttention", "triton_attn.TritonAttention"])
def test_vllms_own_backends_can_be_wrapped(name: str) -> None:
    """What runs on a GPU can be put together without one."""
    stock = resolve_name(f"vllm.v1.attention.backends.{name}Backend")
    ours = partial_backend(stock)
    assert issubclass(ours, stock)
    assert issubclass(ours.get_builder_cls(), stock.get_builder_cls())
    assert issubclass(ours.get_impl_cls(), stock.get_impl_cls())
    metadata_class = resolve_name(f"vllm.v1.attention.backends.{name}Metadata")
    values = {field.name: object() for field in fields(metadata_class)}
    routed = with_routing(metadata_class(**values), None)
    assert isinstance(routed, metadata_class)
    assert vars(routed) == {**values, "routing": None}


def test_other_backends_are_refused() -> None:
    assert set(SUPPORTED) == set(BACKENDS)
    with pytest.raises(FlagRefused, match="FLASHINFER"):
        backend("FLASHINFER")
