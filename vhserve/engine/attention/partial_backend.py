"""Attention backends for a plan with text-only heads, on top of the platform's own.

Owns which stock backends can be used, the KV cache layouts that they need, and which builder each gets: one for full
heads (`block_outermost_backend`) and one for text-only heads (`partial_backend`). Does not know how either computes.
"""

import functools
from typing import Any, Final, NamedTuple

from vllm.v1.attention.backend import AttentionBackend
from vllm.v1.kv_cache_layout import KVCacheLayout

from vhserve.engine.attention.device_builder import DeviceBuilder
from vhserve.engine.attention.host_builder import HostBuilder
from vhserve.engine.attention.partial_builder import PartialBuilder
from vhserve.engine.attention.partial_impl import PartialImpl
from vhserve.errors import FlagRefused


class Support(NamedTuple):
    """How a stock backend serves text-only heads.

    Attributes
    ----------
    builder
        Mixin for its metadata builder.
    layouts
        Layouts with blocks outermost, most preferred first: groups of unlike layers can share blocks in no other.
    """

    builder: type[PartialBuilder]
    layouts: tuple[KVCacheLayout, ...]


SUPPORTED: Final = {
    "CPU_ATTN": Support(HostBuilder, (KVCacheLayout.BLHNC,)),  # its kernel reads head-major blocks, at any stride
    "FLASH_ATTN": Support(DeviceBuilder, (KVCacheLayout.BLNHC, KVCacheLayout.BLHNC)),
    "TRITON_ATTN": Support(DeviceBuilder, (KVCacheLayout.BLNHC, KVCacheLayout.BLHNC)),
}
"""By vLLM's name of the stock backend."""


@functools.cache
def block_outermost_backend(stock: type[AttentionBackend]) -> type[AttentionBackend]:
    """The backend of full heads beside text-only ones: the stock one, in a layout that lets groups share blocks.

    Raises
    ------
    FlagRefused
        The stock backend cannot serve text-only heads, so that no layer can have any.
    """
    layouts = _support(stock).layouts
    if stock.supported_kv_cache_layouts() is None:
        return stock  # any layout will do
    return _subclass("BlockOutermost", stock, {"supported_kv_cache_layouts": classmethod(lambda cls: layouts)})


@functools.cache
def partial_backend(stock: type[AttentionBackend]) -> type[AttentionBackend]:
    """The backend of text-only heads, on top of the stock one.

    Raises
    ------
    FlagRefused
        Its builder plans on the host, or reads what compaction does not keep up to date.
    """
    support = _support(stock)
    builder = _mixed(support.builder, stock.get_builder_cls())  # type: ignore[no-untyped-call]  # vLLM's
    impl = _mixed(PartialImpl, stock.get_impl_cls())
    members = {
        "supported_kv_cache_layouts": classmethod(lambda cls: support.layouts),
        "get_builder_cls": staticmethod(lambda: builder),
        "get_impl_cls": staticmethod(lambda: impl),
    }
    return _subclass("TextOnly", stock, members)


def _subclass(prefix: str, stock: type[AttentionBackend], members: dict[str, Any]) -> type[AttentionBackend]:
    name = f"{prefix}{stock.__name__}"
    return type(name, (stock,), {"__module__": __name__, "__qualname__": name, **members})


def _mixed(mixin: type, stock: type) -> type:
    name = f"{mixin.__name__}Of{stock.__name__}"
    return type(name, (mixin, stock), {"__module__": __name__, "__qualname__": name})


def _support(stock: type[AttentionBackend]) -> Support:
    try:
        return SUPPORTED[stock.get_name()]
    except KeyError:
        raise FlagRefused(
            f"the attention backend {stock.get_name()} cannot serve text-only heads",
            expected=f"one of {', '.join(SUPPORTED)}",
            fix="choose one with --attention-backend",
        ) from None
