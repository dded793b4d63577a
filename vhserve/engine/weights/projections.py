"""Projections of the heads that a layer keeps: vLLM's own linear layers, smaller.

Owns the selection of rows and columns of the checkpoint's full tensors as these are loaded: each is cut as it is read,
so the full weights are never resident. Does not know why a head is kept.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import Parameter
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear

from vhserve.engine.weights.mean_compensation import BiasSum, MeanCompensation, head_rows


class KeptQKV(QKVParallelLinear):
    """`qkv_proj` of the kept heads; its weight has shape ((query + 2 * KV heads) * head size, hidden size).

    Parameters
    ----------
    stock
        The projection it replaces.
    query_heads, kv_heads
        Heads of the checkpoint to keep, in the order in which they are laid out.
    """

    def __init__(self, stock: QKVParallelLinear, query_heads: Sequence[int], kv_heads: Sequence[int]) -> None:
        super().__init__(
            stock.hidden_size,
            stock.head_size,
            len(query_heads),
            len(kv_heads),
            bias=stock.has_bias,
            params_dtype=stock.params_dtype,
            prefix=stock.prefix,
        )
        kv_rows = head_rows(kv_heads, self.head_size)
        self.rows = {"q": head_rows(query_heads, self.head_size), "k": kv_rows, "v": kv_rows}
        self.stock_heads = {"q": stock.total_num_heads, "k": stock.total_num_kv_heads, "v": stock.total_num_kv_heads}

    def _keep(self, full: torch.Tensor, shard: str) -> torch.Tensor:
        return full.index_select(0, self.rows[shard].to(full.device))

    def _shards(self, full: torch.Tensor, shard: str | None) -> Iterator[tuple[str, torch.Tensor]]:
        """Kept rows by shard; some checkpoints, as Phi-3's, have one tensor for all three, without a shard's name."""
        if shard is not None:
            yield shard, self._keep(full, shard)
            return
        parts = torch.split(full, [heads * self.head_size for heads in self.stock_heads.values()])
        for name, part in zip(self.stock_heads, parts, strict=True):
            yield name, self._keep(part, name)

    # vLLM chooses one of the two loaders by the quantisation method.
    def weight_loader(self, param: Parameter, loaded_weight: torch.Tensor, loaded_shard_id: Any = None) -> None:
        for shard, kept in self._shards(loaded_weight, loaded_shard_id):
            super().weight_loader(param, kept, shard)

    def weight_loader_v2(self, param: Any, loaded_weight: torch.Tensor, loaded_shard_id: Any = None) -> None:
        for shard, kept in self._shards(loaded_weight, loaded_shard_id):
            super().weight_loader_v2(param, kept, shard)


class KeptOutput(RowParallelLinear):
    """`o_proj` of the kept heads, with the compensation as part of its bias.

    Its weight has shape (hidden size, kept query heads * head size).

    Parameters
    ----------
    stock
        The projection it replaces.
    query_heads
        Heads of the checkpoint to keep, in the order of the attention's output.
    compensation
        None for zero in place of the removed heads.
    """

    def __init__(
        self,
        stock: RowParallelLinear,
        head_size: int,
        query_heads: Sequence[int],
        compensation: MeanCompensation | None,
    ) -> None:
        super().__init__(
            len(query_heads) * head_size,
            stock.output_size,
            bias=stock.bias is not None or compensation is not None,
            params_dtype=stock.params_dtype,
            reduce_results=stock.reduce_results,
            prefix=stock.prefix,
        )
        self.columns = head_rows(query_heads, head_size)
        self.compensation = compensation
        self.bias_sum = BiasSum()
        if self.bias is not None:
            self.bias.data.zero_()

    def _keep(self, full: torch.Tensor) -> torch.Tensor:
        if self.compensation is not None:
            self.bias_sum.put("compensation", self.compensation.bias(full), self.bias.data)
        return full.index_select(1, self.columns.to(full.device))

    def weight_loader(self, param: Parameter, loaded_weight: torch.Tensor) -> None:
        if param is self.bias:
            self.bias_sum.put("checkpoint", loaded_weight, self.bias.data)
        else:
            super().weight_loader(param, self._keep(loaded_weight))

    def weight_loader_v2(self, param: Any, loaded_weight: torch.Tensor) -> None:
        super().weight_loader_v2(param, self._keep(loaded_weight))
