"""The attention back end of text-only heads: the platform's own, over compacted metadata.

One wrapper for CPU attention, FlashAttention and Triton attention: the builder drops null blocks before the stock
builder sees the batch, the implementation moves kept queries around the stock kernel and zeroes the others' output.
Does not know which heads these are, nor why a block is the null block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import AttentionBackend, AttentionCGSupport, CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec, KVCacheSpec
from vllm.v1.kv_cache_layout import KVCacheLayout

from vhserve.compat import copy_of_batch
from vhserve.engine.attention.device_compaction import Compactor
from vhserve.engine.attention.host_compaction import Shape, shape_of
from vhserve.engine.checks.error_relay import relay_user_errors
from vhserve.errors import FlagRefused

LAYOUTS = {
    "CPU_ATTN": (KVCacheLayout.BLHNC,),  # its kernel reads head-major blocks, at any stride
    "FLASH_ATTN": (KVCacheLayout.BLNHC, KVCacheLayout.BLHNC),
    "TRITON_ATTN": (KVCacheLayout.BLNHC, KVCacheLayout.BLHNC),
}
"""Layouts with blocks outermost, most preferred first: groups of unlike layers can share blocks in no other."""

_SHARED = "_vhserve_compacted"


@dataclass
class Moved:
    """What the implementation must do beside the stock kernel."""

    order: torch.Tensor | None  # old index of each query the kernel gets; None: it gets all, in place
    dropped: torch.Tensor | None  # (tokens,) bool: output rows to zero; None: none
    tokens: int
    skipped: torch.Tensor | None = None  # on hosts: old indices of the others; None: none, or told by no host

    @property
    def nothing_kept(self) -> bool:
        """The kernel need not run."""
        return self.skipped is not None and len(self.skipped) == self.tokens


class TextOnlyBuilder:
    """Put before a stock metadata builder."""

    supports_update_block_table = False  # vLLM would put the raw table into our metadata
    supports_draft_decode_metadata_update = False

    _last_step: ClassVar[tuple[torch.Tensor, Shape | None] | None] = None
    """On hosts: the lengths that vLLM made for the last step, which tell steps apart by identity, and their shape."""

    @relay_user_errors()
    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)  # type: ignore[call-arg]
        block_size = vllm_config.cache_config.block_size
        if kv_cache_spec.block_size != block_size:
            raise FlagRefused(
                f"the attention back end splits blocks of {block_size} tokens into {kv_cache_spec.block_size}",
                expected="kernel blocks of the KV cache's size, so that text-only heads have one null block",
                fix=f"set --block-size {kv_cache_spec.block_size}",
            )
        scheduler = vllm_config.scheduler_config
        capture = vllm_config.compilation_config.max_cudagraph_capture_size or 0
        self.supports_draft_decode_metadata_update = False  # stock builders set it on the instance
        self._block_size = block_size
        self._compact: Compactor | None = None  # on hosts, which have no use for its buffers
        if device.type != "cpu":
            requests = max(scheduler.max_num_seqs, capture)
            tokens = max(scheduler.max_num_batched_tokens, capture)
            self._compact = Compactor(requests, tokens, block_size, device)

    @classmethod
    def get_cudagraph_support(cls, vllm_config: VllmConfig, kv_cache_spec: KVCacheSpec) -> AttentionCGSupport:
        """At most graphs of decode steps: in others, how many queries are kept differs from replay to replay."""
        stock: AttentionCGSupport = super().get_cudagraph_support(vllm_config, kv_cache_spec)  # type: ignore[misc]
        return min(stock, AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE, key=lambda support: support.value)

    @classmethod
    def get_varlen_cudagraph_max_query_len(cls, vllm_config: VllmConfig, kv_cache_spec: KVCacheSpec) -> int | None:
        return None

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> Any:
        # All builders of a group get the same object in a step: the first compacts for all.
        shared = common_attn_metadata.__dict__.get(_SHARED)
        if shared is None or shared[0] is not common_attn_metadata.block_table_tensor:
            if self._compact is None:
                made = self._compact_for_cpu(common_attn_metadata)
            else:
                made = self._compact_in_place(self._compact, common_attn_metadata)
            shared = (common_attn_metadata.block_table_tensor, *made)
            setattr(common_attn_metadata, _SHARED, shared)
        _, compacted, moved = shared
        metadata = super().build(common_prefix_len, compacted, fast_build)  # type: ignore[misc]
        metadata.text_only = moved
        return metadata

    @staticmethod
    def _compact_in_place(
        compact: Compactor, batch: CommonAttentionMetadata
    ) -> tuple[CommonAttentionMetadata, Moved | None]:
        """Without a look at the device: shapes stay as they are, and queries are counted there only.

        `query_start_loc_cpu` is left as it was; stock builders read it for context parallelism and PrefixLM, both
        refused. `max_query_len` and `max_seq_len` stay upper bounds.
        """
        got = compact(
            batch.block_table_tensor,
            batch.seq_lens,
            batch.slot_mapping,
            batch.query_start_loc,
            requests=batch.num_reqs,
            tokens=batch.num_actual_tokens,
            decode=batch.max_query_len <= 1,
        )
        compacted = _altered(
            batch, block_table_tensor=got.block_table, seq_lens=got.seq_lens, query_start_loc=got.query_start_loc
        )
        return compacted, Moved(got.order, got.dropped, batch.num_actual_tokens)

    def _compact_for_cpu(self, batch: CommonAttentionMetadata) -> tuple[CommonAttentionMetadata, Moved | None]:
        """The host is the device: what is dropped is left out, and a batch without images stays vLLM's own."""
        shape = self._shape(batch)
        if shape is None:
            return batch, None
        if shape.queries is None:
            table = shape.block_table(batch.block_table_tensor[: batch.num_reqs])
            changed = {"block_table_tensor": table, "seq_lens": shape.seq_lens, "max_seq_len": shape.longest}
            return _altered(batch, **changed), None
        queries, tokens = shape.queries, batch.num_actual_tokens
        if not len(queries.order):
            return batch, Moved(queries.order, None, tokens, queries.skipped)
        lens = shape.seq_lens[queries.rows]
        compacted = _altered(
            batch,
            num_reqs=len(queries.rows),
            num_actual_tokens=len(queries.order),
            block_table_tensor=shape.block_table(batch.block_table_tensor[: batch.num_reqs])[queries.rows],
            seq_lens=lens,
            query_start_loc=queries.starts,
            query_start_loc_cpu=queries.starts,
            max_query_len=queries.longest,
            max_seq_len=int(lens.max()),
        )
        return compacted, Moved(queries.order, queries.dropped, tokens, queries.skipped)

    def _shape(self, batch: CommonAttentionMetadata) -> Shape | None:
        """Told by the first group of a step for all: their batches hold the very same lengths."""
        seen = TextOnlyBuilder._last_step
        if seen is None or seen[0] is not batch.seq_lens:
            requests, tokens = batch.num_reqs, batch.num_actual_tokens
            shape = shape_of(
                batch.block_table_tensor[:requests],
                batch.seq_lens[:requests],
                batch.slot_mapping[:tokens],
                batch.query_start_loc[: requests + 1],
                self._block_size,
            )
            seen = TextOnlyBuilder._last_step = (batch.seq_lens, shape)
        return seen[1]


class TextOnlyImpl:
    """Put before a stock attention implementation."""

    def fused_output_quant_supported(self, quant_key: Any) -> bool:
        return False  # rows are zeroed after the kernel

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        stock: Callable[..., torch.Tensor] = functools.partial(super().forward, layer)  # type: ignore[misc]
        scales = (output_scale, output_block_scale)
        moved: Moved | None = None if attn_metadata is None else attn_metadata.text_only
        if moved is None:
            return stock(query, key, value, kv_cache, attn_metadata, output, *scales)
        used = output[: moved.tokens]
        if moved.nothing_kept:
            used.zero_()
            return output
        if moved.order is None:
            stock(query, key, value, kv_cache, attn_metadata, output, *scales)
        else:
            kept = output.new_empty((moved.order.shape[0], *output.shape[1:]))
            stock(_rows(query, moved.order), key, value, kv_cache, attn_metadata, kept, *scales)
            used.index_copy_(0, moved.order, kept)
        if moved.dropped is not None:
            # Filled, not multiplied: a row without keys may be NaN.
            used.masked_fill_(moved.dropped[:, None, None], 0)
        return output


def _rows(query: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    if query.element_size() > 1:
        return query.index_select(0, order)
    # Not every device indexes FP8.
    return query.view(torch.uint8).index_select(0, order).view(query.dtype)


def _altered(batch: CommonAttentionMetadata, **changes: Any) -> CommonAttentionMetadata:
    """A copy with other tensors."""
    altered: CommonAttentionMetadata = copy_of_batch(batch)
    altered.__dict__.pop(_SHARED, None)
    for name, value in changes.items():
        setattr(altered, name, value)
    return altered


@functools.cache
def block_outermost(stock: type[AttentionBackend]) -> type[AttentionBackend]:
    """The stock back end for full heads beside text-only ones: the same, in a layout that lets groups share blocks.

    Raises
    ------
    FlagRefused
    """
    layouts = _layouts_of(stock)
    if stock.supported_kv_cache_layouts() is None:
        return stock  # any layout will do
    name = f"BlockOutermost{stock.__name__}"
    members = {"supported_kv_cache_layouts": classmethod(lambda cls: layouts)}
    return type(name, (stock,), {"__module__": __name__, "__qualname__": name, **members})


@functools.cache
def text_only(stock: type[AttentionBackend]) -> type[AttentionBackend]:
    """The back end for text-only heads on top of a platform's stock back end.

    Raises
    ------
    FlagRefused
        Its builder plans on the host, or reads what compaction does not keep up to date.
    """
    layouts = _layouts_of(stock)
    builder = _joined(TextOnlyBuilder, stock.get_builder_cls())  # type: ignore[no-untyped-call]
    impl = _joined(TextOnlyImpl, stock.get_impl_cls())
    name = f"TextOnly{stock.__name__}"
    members = {
        "supported_kv_cache_layouts": classmethod(lambda cls: layouts),
        "get_builder_cls": staticmethod(lambda: builder),
        "get_impl_cls": staticmethod(lambda: impl),
    }
    return type(name, (stock,), {"__module__": __name__, "__qualname__": name, **members})


def _joined(mixin: type, stock: type) -> type:
    name = f"{mixin.__name__}Of{stock.__name__}"
    return type(name, (mixin, stock), {"__module__": __name__, "__qualname__": name})


def _layouts_of(stock: type[AttentionBackend]) -> tuple[KVCacheLayout, ...]:
    try:
        return LAYOUTS[stock.get_name()]
    except KeyError:
        raise FlagRefused(
            f"the attention back end {stock.get_name()} cannot serve text-only heads",
            expected=f"one of {', '.join(LAYOUTS)}",
            fix="choose one with --attention-backend",
        ) from None
