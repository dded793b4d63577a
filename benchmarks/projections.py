"""The projections of one decoder layer with weights of chance, by vLLM's own linear method and by vhserve's.

Does not know how they are timed (`dropped_tokens`), and no engine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from vllm.model_executor.layers.linear import UnquantizedLinearMethod

from vhserve.engine.weights.dropped_tokens import HeadParts
from vhserve.engine.weights.packed_parts import PackedOutput, PackedQKV
from vhserve.engine.weights.projection_choice import WORTHWHILE
from vhserve.engine.weights.weight_views import OutputViews, QKVViews, WeightViews

if TYPE_CHECKING:
    from benchmarks.dummy_model import Geometry

COPIES: Final = 4
"""Of a projection, one after another, as a model's layers are: no weight is in a cache when its turn comes."""


@dataclass(frozen=True)
class Projection:
    """One of a layer's projections.

    Attributes
    ----------
    lasts_share
        Of the layer's heads: those that drop tokens.
    method
        Makes vhserve's linear method.
    """

    name: str
    lasts_share: float
    inputs: int
    outputs: int
    method: Callable[[], Any]

    def build(self, device: str, dtype: torch.dtype) -> "Arms":
        arms = Arms([], [])
        for _ in range(COPIES):
            weight = torch.randn(self.outputs, self.inputs, device=device, dtype=dtype) / self.inputs**0.5
            for built, method in ((arms.stock, UnquantizedLinearMethod()), (arms.ours, self.method())):
                layer: Any = nn.Module()
                # On devices both read the same; on CPUs each packs its own.
                layer.weight = nn.Parameter(weight, requires_grad=False)
                method.process_weights_after_loading(layer)
                built.append((method, layer))
        return arms


@dataclass(frozen=True)
class Arms:
    """`COPIES` linear methods and layers of each arm."""

    stock: list[tuple[Any, Any]]
    ours: list[tuple[Any, Any]]

    def run_stock(self, x: torch.Tensor) -> None:
        for method, layer in self.stock:
            method.apply(layer, x)

    def run_ours(self, x: torch.Tensor, kept: torch.Tensor | None) -> None:
        """With views, or packed parts, whatever vhserve would choose."""
        for method, _ in self.ours:
            if isinstance(method, WeightViews):
                method.least_saved = float("-inf")
            method.project_kept(x, None, kept)


def projections(geometry: "Geometry", share: float, views: bool) -> list[Projection]:
    """Of a layer so many of whose KV heads, with their queries, drop tokens; on devices by views."""
    size, group = geometry.head_size, geometry.query_heads // geometry.kv_heads
    lasts = max(1, round(share * geometry.kv_heads))
    keys = HeadParts((geometry.kv_heads - lasts) * size, lasts * size)
    queries = HeadParts(keys.others * group, keys.lasts * group)
    runs, hidden = (queries, keys, keys), geometry.hidden_size

    def qkv() -> Any:
        return QKVViews("", runs) if views else PackedQKV("", runs)

    def output() -> Any:
        return OutputViews("", queries) if views else PackedOutput("", queries, hidden)

    true_share = lasts / geometry.kv_heads
    return [
        Projection("qkv_proj", true_share, hidden, sum(map(sum, runs)), qkv),
        Projection("o_proj", true_share, sum(queries), hidden, output),
    ]


def saved(one: Projection, tokens: int, kept: int, views: bool) -> float:
    """Multiply-adds that are saved; with views kept tokens meet the other heads' part twice."""
    repeated = kept * (1 - one.lasts_share) if views else 0.0
    return ((tokens - kept) * one.lasts_share - repeated) * one.inputs * one.outputs


def launches(one: Projection) -> int:
    """Kernels more than vLLM's one that views take where tokens are dropped; 0 of packed parts."""
    method = one.method()
    return method.launches if isinstance(method, WeightViews) else 0


def chosen(one: Projection, saving: float) -> bool:
    """Whether vhserve would do so here."""
    method = one.method()
    return bool(saving >= method.least_saved if isinstance(method, WeightViews) else one.lasts_share >= WORTHWHILE)
